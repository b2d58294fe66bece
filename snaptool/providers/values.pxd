ctypedef const unsigned char[::1] Bytes
ctypedef unsigned char[::1] Room
ctypedef long long[::1] Words
ctypedef object View
ctypedef int (*Box)(unsigned char *out, const unsigned char *data, unsigned long long size, const unsigned char *nonce, const unsigned char *key) noexcept nogil
