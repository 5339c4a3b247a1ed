/* cuda_object.h — what an object for GPUs holds beside the weights: the launcher, an image, the functions with its prefix.
 *
 *   P_run, P_close, P_error ──(image, weights, decisions)──> tn_cuda_run, ... (launcher/cuda.c, compiled with Tenon) ── image
 */
#ifndef CG_CUDA_OBJECT_H
#define CG_CUDA_OBJECT_H
#include "codegen/codegen.h"
#include "codegen/cuda_image.h"
#include "codegen/entry.h"

typedef struct cg_cuda_part {
  const void *image;       /* cuda_image.h */
  size_t image_bytes;
  int64_t session_bytes;   /* of the caller's arena */
  const char *archs;       /* "sm_80, sm_90a": for people */
  bool walked;             /* the program decides at run time, or has dims */
  int nnumbers;
  const cg_number *numbers; /* the image's expressions of sizes */
} cg_cuda_part;

/* Where a slot of a run lies on a device. */
cu_image_base cu_image_base_of(tn_ctx *ctx, const ir_slot *s);

/* The launcher as a relocatable object. Throws TN_EUNSUPPORTED for targets other than the one Tenon was built for. */
const cg_object *cu_launcher(tn_ctx *ctx, const cg_target *t);
/* Functions PREFIX_run, PREFIX_close, PREFIX_error over the launcher's; symbols in e: of the embedded blob, a walk, numbers, each null where there is none. */
const cg_object *cu_compile_entry(tn_ctx *ctx, const cg_target *t, const char *prefix, const cg_entry_options *e, const cg_cuda_part *part);
#endif
