ctypedef unsigned char[::1] Room
ctypedef int (*Update)(void *context, const void *data, size_t size) noexcept nogil
