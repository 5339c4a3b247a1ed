/* tenon.h — the public face of Tenon, a tensor compiler (TENsor tO Native).
 *
 * Context first: every call takes the context that owns what it makes. A context
 * is used by one thread at a time; different contexts are independent. Compiled
 * modules are immutable and may run from many threads at once.
 */
#ifndef TENON_H
#define TENON_H
#include <stddef.h>
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TN_API __attribute__((visibility("default")))
#else
#define TN_API
#endif

/* Status of a call; the same numbers are the exit codes of the CLI. */
typedef enum tn_status {
  TN_OK = 0,
  TN_EWRONG = 1,        /* a comparison found a wrong result */
  TN_EUSAGE = 2,        /* bad arguments */
  TN_EUNSUPPORTED = 3,  /* valid input that Tenon does not handle; the message says why */
  TN_EINPUT = 4,        /* malformed input */
  TN_ERESOURCE = 5,     /* out of memory, disk, time, or a file that cannot be opened */
  TN_EINTERNAL = 70     /* a broken invariant inside Tenon */
} tn_status;

/* Element types. TN_INDEX exists only inside kernels: 64-bit, never overflows. */
typedef enum tn_dtype {
  TN_NONE = 0,
  TN_BOOL, TN_I8, TN_I16, TN_I32, TN_I64, TN_U8, TN_U16, TN_U32, TN_U64,
  TN_F16, TN_BF16, TN_F32, TN_F64, TN_INDEX,
  TN_DTYPE_COUNT
} tn_dtype;

typedef struct tn_ctx tn_ctx;

/* Callbacks of a context; any may be null. `alloc(user, 0, p)` frees p, as realloc does. */
typedef struct tn_config {
  void *user;
  void *(*alloc)(void *user, size_t bytes, void *old);
  void (*log)(void *user, const char *line);
} tn_config;

/* A new context, or null when memory is out. `config` may be null. */
TN_API tn_ctx *tn_ctx_new(const tn_config *config);
/* Frees the context and all that it owns. */
TN_API void tn_ctx_free(tn_ctx *ctx);
/* Message of the last failed call ("" if none); lives until the next failing call. */
TN_API const char *tn_error(const tn_ctx *ctx);

#ifdef __cplusplus
}
#endif
#endif
