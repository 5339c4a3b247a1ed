/* entry.h — the code around the kernels: P_run, P_pack and P_init of a program.
 *
 * The entry checks what it was given, then calls one kernel after the other:
 *
 *   P_run:  ISA → pointers → weights header → { args on the stack; kernel(args, task, worker) }*
 *
 * JIT and object use the same module; only symbols and embedding differ. Of an object for GPUs whose program decides at run time it
 * has the decisions alone, which ask the launcher for calls and values.
 *
 * Memory: the weights blob is a header of CG_BLOB_HEADER bytes, then program->weights_bytes; the
 * arena is program->arena_bytes, CG_ALIGN bytes of the entry's own, what phases of a kernel share, then the
 * scratch of worker 0, 1, ...; a packing run has its
 * arena and scratch behind the blob (cg_program_pack_bytes).
 */
#ifndef CG_ENTRY_H
#define CG_ENTRY_H
#include "codegen/codegen.h"

/* Return values of P_run and P_pack; the header's P_E_... macros. */
enum {
  CG_RUN_OK = 0,
  CG_RUN_ARG = 1,     /* a null pointer, or workers < 1 */
  CG_RUN_ALIGN = 2,   /* arena, weights or state not aligned to CG_ALIGN, or an in/out to its element */
  CG_RUN_ISA = 3,     /* the CPU lacks an instruction set */
  CG_RUN_WEIGHTS = 4, /* not the blob of this object */
  CG_RUN_DIMS = 5,    /* a dynamic dimension out of its range */
  CG_RUN_DRIVER = 6,  /* of objects for GPUs, from here on: getproc lacks a function of the driver */
  CG_RUN_DEVICE = 7,  /* no such device, or none that the code is for */
  CG_RUN_MEMORY = 8,  /* the device's memory is out */
  CG_RUN_CALL = 9     /* the driver failed: P_error tells */
};
const char *cg_run_error(int code); /* a sentence; "" for 0 */

#define CG_ALIGN 64
#define CG_BLOB_HEADER 64
#define CG_BLOB_MAGIC "TNWEIGHT"
#define CG_BLOB_VERSION 1

/* First bytes of a weights blob, little-endian. */
typedef struct cg_blob_header {
  char magic[8];    /* CG_BLOB_MAGIC, no zero */
  uint32_t version; /* CG_BLOB_VERSION */
  uint32_t zero;
  uint64_t layout;  /* cg_weights_layout of the program */
  uint64_t bytes;   /* whole blob, header included */
  uint8_t reserved[32];
} cg_blob_header;

/* Hash of where each weight lies and in what form: programs that agree in it can share a blob
 * made from the same tensors. */
uint64_t cg_weights_layout(tn_ctx *ctx, const ir_program *p);
cg_blob_header cg_blob_header_of(tn_ctx *ctx, const ir_program *p);
/* Bytes of the blob; 0 when the program has no weights. */
int64_t cg_blob_bytes(const ir_program *p);

/* Scratch of one worker that the run (or pack) section needs: the most of its kernels.
 * infos[i] belongs to p->kernels[i]; kernels that the section does not call are not looked at. */
int64_t cg_scratch_bytes(const ir_program *p, bool pack, const cg_kernel_info *infos);
/* The same of what the phases of a kernel share, which comes before. */
int64_t cg_shared_bytes(const ir_program *p, bool pack, const cg_kernel_info *infos);
/* Where in the arena of a run both begin. */
int64_t cg_scratch_at(const ir_program *p);
/* Bytes that the arena of a run takes with so many workers. */
int64_t cg_arena_bytes(const ir_program *p, const cg_kernel_info *infos, int workers);
/* Bytes that P_pack needs at `blob`: the blob, then temporaries. */
int64_t cg_pack_bytes(const ir_program *p, const cg_kernel_info *infos);
/* marks[i] = true for each kernel that the section calls. */
void cg_mark_kernels(const ir_program *p, bool pack, bool *marks);

typedef struct cg_entry_options {
  const char *run;     /* symbol of P_run; null: none */
  const char *pack;    /* symbol of P_pack; null: none */
  const char *init;    /* symbol of P_init; null: none */
  const char *isa;     /* symbol of the ISA check: `int32_t ISA(void)`, 0 if this CPU has all that the target needs, else 1 + the
                        * index of the first of t->isa that is missing; null: not checked */
  const char *weights; /* symbol of the embedded blob, used when the caller passes null; null: none */
  const char *walk, *number;       /* symbols of a cu_walk and a cu_number (cuda_image.h); null: none */
  int nnumbers;
  const struct cg_number *numbers; /* what that one gives for 1, 2, ... */
} cg_entry_options;

typedef struct cg_number { /* an expression of sizes */
  ix value;
  int nvars;
  ir_var *const *vars; /* values[i] is the value of vars[i] */
} cg_number;

/* The object with these functions. infos[i].symbol is the symbol of p->kernels[i]. Throws
 * TN_EUNSUPPORTED for instructions that are not handled (other devices, dimensions without a value). */
const cg_object *cg_compile_entry(tn_ctx *ctx, const cg_target *t, const ir_program *p, const cg_kernel_info *infos,
                                  const cg_entry_options *o);
#endif
