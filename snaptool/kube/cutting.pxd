ctypedef const unsigned char[::1] Bytes
ctypedef long long[::1] Numbers
