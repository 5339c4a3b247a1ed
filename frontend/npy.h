/* npy.h — NumPy's .npy files (format versions 1 to 3).
 *
 *   "\x93NUMPY" major minor  header length (u16 or u32)  header  data
 *   header: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } padded with blanks
 *
 * Little-endian numbers only. Data is used where it lies in the map; Fortran order is
 * copied into C order. bfloat16 has no NumPy code of its own: it is written as '<V2', as
 * ml_dtypes does, and read from '<V2' or '|V2', or from '<u2' on request.
 * Floats of a byte are '|V1', which does not say which of them: fe_array.unnamed.
 */
#ifndef FE_NPY_H
#define FE_NPY_H
#include "frontend/file.h"

enum { FE_NPY_U2_IS_BF16 = 1 }; /* flags */

/* Throws TN_EINPUT on a malformed file, TN_EUNSUPPORTED on a dtype that Tenon lacks
 * (structured, strings, complex, big-endian), TN_ERESOURCE when it cannot be opened. */
fe_array fe_npy_load(tn_ctx *ctx, const char *path, unsigned flags);
/* The same from bytes that outlive the result; `name` is for messages. */
fe_array fe_npy_parse(tn_ctx *ctx, const void *bytes, size_t n, const char *name, unsigned flags);
/* Writes a version-1 file in C order, atomically; `a->name` is not stored. */
void fe_npy_save(tn_ctx *ctx, const char *path, const fe_array *a);
#endif
