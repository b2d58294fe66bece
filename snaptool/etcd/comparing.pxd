ctypedef const unsigned char[::1] Bytes
ctypedef unsigned char[::1] Marks
ctypedef long long[::1] Numbers
ctypedef const unsigned int[::1] Sums
ctypedef unsigned int[::1] Counts
ctypedef object Views
ctypedef unsigned int (*Crc)(unsigned int before, const unsigned char *data, unsigned long size) noexcept nogil
