/* pack.h — the pack section of a program, done here: weights as runs want them.
 *
 * Kernels are called one after the other from C. What a call leaves for runs alone goes straight into the file that the
 * weights are for, through a buffer of the size of the largest: neither all of the blob is in memory, nor is new
 * memory asked of the system for each. */
#ifndef RT_PACK_H
#define RT_PACK_H
#include "codegen/codegen.h"
#include "runtime/threads.h"

/* Zeroed memory of the system for what is big, blobs and arenas: given back whole. From 1 MiB on it starts where a huge
 * page does, is a whole number of them, and asks for them: walks of page tables cost products up to a twentieth. */
typedef struct rt_region {
  void *p;
  size_t bytes; /* at least what was asked for */
} rt_region;
bool rt_region_get(rt_region *r, int64_t bytes); /* false, and p null: out of memory */
void rt_region_free(void *region);               /* for ir_defer; may be called twice */

typedef void (*rt_kernel)(void *args, int task, int worker); /* as codegen.h says; args: a table of pointers */

typedef struct rt_packing {
  const ir_program *p;
  const cg_kernel_info *infos;
  const rt_kernel *kernels;  /* per program kernel */
  const void *const *raw;    /* tensors by number of the raw slot; null, all or one: the program's own */
  const rt_threads *threads; /* null: serial */
  void *blob;                /* cg_blob_bytes, aligned to 64. With a file, memory that need not exist: it holds what is read again */
  struct fe_writer *file;    /* null: the blob is filled. Else packed into the file, as fe_write_ahead says; blob: zeros */
  size_t at;                 /* of the blob in the file */
} rt_packing;

/* Throws TN_EUSAGE when a tensor is missing, TN_ERESOURCE when memory is out. What cannot be written is told by the
 * file's next fe_write. */
void rt_pack(tn_ctx *ctx, const rt_packing *w);
#endif
