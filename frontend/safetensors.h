/* safetensors.h — named arrays in one file.
 *
 *   u64 header length n | n bytes of JSON | data
 *   JSON: {"__metadata__": {"k": "v"}, "name": {"dtype": "F32", "shape": [2, 3],
 *          "data_offsets": [begin, end]}, ...}     offsets count from the start of the data
 *
 * The file is untrusted. Refused: a header that is not exactly this, duplicate keys, bytes
 * that do not match dtype and shape, tensors that overlap, data that belongs to no tensor.
 */
#ifndef FE_SAFETENSORS_H
#define FE_SAFETENSORS_H
#include "frontend/file.h"

enum { FE_SAFETENSORS_HEADER_MAX = 100000000 }; /* bytes, as in the reference implementation */

typedef struct fe_safetensors {
  const char *file;
  int n;
  const fe_array *items; /* sorted by name (strcmp); dtype NONE for types that Tenon lacks */
  const char *const *type_names; /* the file's own dtype of each item: "F32", "F8_E4M3", ... */
  int n_meta;
  const char *const *meta; /* key, value, key, value, ...: 2 * n_meta strings */
} fe_safetensors;

/* Throws TN_EINPUT on a malformed file, TN_ERESOURCE when it cannot be opened. */
const fe_safetensors *fe_safetensors_load(tn_ctx *ctx, const char *path);
/* The same from bytes that outlive the context; `name` is for messages. */
const fe_safetensors *fe_safetensors_parse(tn_ctx *ctx, const void *bytes, size_t n, const char *name);
/* Null when there is no such tensor. */
const fe_array *fe_safetensors_find(const fe_safetensors *s, const char *name);
/* The same, but throws: TN_EINPUT when missing, TN_EUNSUPPORTED when its dtype is none of ours. */
const fe_array *fe_safetensors_get(tn_ctx *ctx, const fe_safetensors *s, const char *name);

/* Writes n arrays with distinct names, atomically, wider types first so that all are aligned
 * to their element. `meta` has 2 * n_meta strings. Throws TN_EUSAGE on a bad name or dtype. */
void fe_safetensors_save(tn_ctx *ctx, const char *path, const fe_array *items, int n, const char *const *meta,
                         int n_meta);
#endif
