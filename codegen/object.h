/* object.h — a program as files: model.o, model.h, and the weights inside, beside or from pointers. */
#ifndef CG_OBJECT_H
#define CG_OBJECT_H
#include "codegen/build.h"
#include "codegen/cuda_object.h"
#include "codegen/entry.h"

typedef enum cg_weights_mode {
  CG_WEIGHTS_EMBED,  /* in the object's read-only data */
  CG_WEIGHTS_FILE,   /* a file that the caller maps */
  CG_WEIGHTS_POINTER /* the caller packs them from the original tensors, with P_pack */
} cg_weights_mode;

typedef struct cg_object_options {
  const char *path;         /* of the object file */
  const char *header;       /* of the C header; null: none */
  const char *prefix;       /* C identifier: functions are PREFIX_run, ..., macros in capitals */
  cg_weights_mode weights;
  const char *weights_path; /* CG_WEIGHTS_FILE; null: path with .weights for .o */
  const cg_cuda_part *cuda; /* null: code for the CPU. Else launches: `build` holds kernels for packing alone */
} cg_object_options;

/* Throws TN_EUSAGE unless the prefix is a C identifier of at most 64 characters. */
void cg_check_prefix(tn_ctx *ctx, const char *prefix);
/* "embed", "file", "pointer"; throws TN_EUSAGE for other words. */
cg_weights_mode cg_weights_mode_parse(tn_ctx *ctx, const char *word);

/* The files are written in two steps, each file whole or not at all: once they are open, weights can be packed and
 * written while the code is still being compiled. */
typedef struct cg_object_files cg_object_files;
cg_object_files *cg_object_begin(tn_ctx *ctx, const ir_program *p, const cg_object_options *o);
/* The file that the weights go to, *at bytes from its start, for fe_write_ahead; null: there are none, or the caller packs them. */
struct fe_writer *cg_object_weights(const cg_object_files *f, int64_t *at);
/* `build` holds the run section's kernels, with CG_WEIGHTS_POINTER the pack section's too. `blob`: the packed weights
 * with their header (cg_blob_bytes); not read with CG_WEIGHTS_POINTER, may be null if the program has none. */
void cg_object_end(tn_ctx *ctx, cg_object_files *f, const cg_build *build, const void *blob);

/* Text of the header alone. codegen/header.c */
const char *cg_header_text(tn_ctx *ctx, const ir_program *p, const cg_build *build, const cg_object_options *o);
#endif
