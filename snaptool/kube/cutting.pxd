ctypedef const unsigned char[::1] Bytes
ctypedef long long[::1] Numbers
ctypedef const unsigned char[::1] Marks
ctypedef unsigned char[::1] Flags
ctypedef object Fits
ctypedef const unsigned int[::1] Words
ctypedef const unsigned short[::1] Shorts
ctypedef unsigned short[::1] Column
ctypedef unsigned int[::1] Halves
