/* build.h — the kernels of a program as object bytes, each distinct one compiled once. */
#ifndef CG_BUILD_H
#define CG_BUILD_H
#include "codegen/codegen.h"

/* Where kernel bytes may come from and go to; the key says everything they depend on. Called
 * by the thread that calls cg_build_kernels only. */
typedef struct cg_cache {
  void *user;
  /* The bytes kept under the key, alive as long as ctx; null: not there. */
  const void *(*find)(tn_ctx *ctx, void *user, const char *key, size_t *size);
  void (*keep)(tn_ctx *ctx, void *user, const char *key, const void *bytes, size_t size);
} cg_cache;

typedef struct cg_build_options {
  const cg_target *target;
  bool run, pack;        /* the sections whose kernels are wanted */
  bool together;         /* all in one object: less work for many small ones. Without a cache only */
  int jobs;              /* threads that compile; 0 and 1: the caller alone */
  const cg_cache *cache; /* may be null: then several kernels share an object */
  void (*beside)(tn_ctx *ctx, void *user); /* done by one of the threads before it compiles, in a context of its own; may be null */
  void *user;            /* of `beside` */
} cg_build_options;

typedef struct cg_part { /* one distinct kernel */
  const char *symbol;    /* made from a hash of the kernel's text */
  const char *name;      /* of the first program kernel that is this one */
  const void *bytes;     /* null: in those of the last part before it that has some */
  size_t size, code_bytes; /* code_bytes: of the kernel alone, 0 when it came from the cache */
  int64_t ntasks;        /* 0: it depends on dims, or came from the cache */
  cg_kernel_info abi;    /* the rest, where ntasks is not 0 */
} cg_part;

typedef struct cg_build {
  const cg_target *target;
  int nparts;
  cg_part *parts;
  int *part_of;          /* per program kernel: index in parts, -1 not wanted */
  cg_kernel_info *infos; /* per program kernel; symbol null when not wanted */
  int hits;              /* parts from the cache */
} cg_build;

/* Compiles the lowered kernels. Throws what cg_compile_kernel throws. All lives in ctx. */
const cg_build *cg_build_kernels(tn_ctx *ctx, const ir_program *p, const cg_build_options *o);
#endif
