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

/* Writes the files, each whole or not at all. `build` holds the run section's kernels, with
 * CG_WEIGHTS_POINTER the pack section's too. `blob`: the packed weights with their header
 * (cg_blob_bytes); not read with CG_WEIGHTS_POINTER, may be null if the program has none. */
void cg_object_write(tn_ctx *ctx, const ir_program *p, const cg_build *build, const void *blob, const cg_object_options *o);

/* Text of the header alone. codegen/header.c */
const char *cg_header_text(tn_ctx *ctx, const ir_program *p, const cg_build *build, const cg_object_options *o);
#endif
