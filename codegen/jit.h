/* jit.h — object bytes into this process. */
#ifndef CG_JIT_H
#define CG_JIT_H
#include "ir/ctx.h"

typedef struct cg_jit cg_jit;

/* A fresh, empty set of linked objects. It is released with the context, or when an
 * ir_protect around the call unwinds by a throw; code taken from it is gone then. */
cg_jit *cg_jit_new(tn_ctx *ctx);
/* Releases it before that. */
void cg_jit_free(tn_ctx *ctx, cg_jit *jit);
/* Links a relocatable object; it may use symbols of objects added before or later, and of
 * libc and libm. The bytes are copied. Throws TN_EINTERNAL with the linker's message. */
void cg_jit_add(tn_ctx *ctx, cg_jit *jit, const void *bytes, size_t size);
/* Address of a global symbol; throws TN_EINTERNAL when there is none. */
void *cg_jit_symbol(tn_ctx *ctx, cg_jit *jit, const char *name);
#endif
