/* module.h — a program as code in this process, or as files.
 *
 *   program ── cg_build_kernels ── bytes ─┬─ JIT + packed weights → rt_run
 *                                         └─ rt_write_object      → model.o, model.h
 *
 * A module does not change once built, except by rt_module_repack; any number of threads may run it
 * at the same time, each run with an arena of its own.
 */
#ifndef RT_MODULE_H
#define RT_MODULE_H
#include "codegen/build.h"
#include "codegen/object.h"
#include "runtime/pack.h"
#include "runtime/profile.h"
#include "runtime/threads.h"

typedef struct rt_module rt_module;

typedef struct rt_options {
  const cg_target *target; /* null: this machine */
  int jobs;                /* threads that compile; 0 and 1: the caller alone */
  const cg_cache *cache;   /* kernel bytes kept elsewhere; may be null */
} rt_options;

/* Compiles, links and packs the weights from the raw slots' data. The program must live as
 * long as the module, and so must ctx. Throws what compilation throws; TN_EUSAGE for a target whose
 * code cannot run here. `options` may be null. */
rt_module *rt_module_build(tn_ctx *ctx, const ir_program *p, const rt_options *options);
/* Releases code, weights and arenas before the context does. No run may be going on. */
void rt_module_free(tn_ctx *ctx, rt_module *m);

/* Packs the weights again from other tensors: raw[i] is the memory of raw slot i, null: the program's own.
 * Runs that go on meanwhile see a mixture: the caller keeps them apart. */
void rt_module_repack(tn_ctx *ctx, rt_module *m, const void *const raw[]);

/* One run. in, out: as P_run of a generated header. state: program->state_bytes, aligned to 64; null
 * when that is 0. threads: null for serial. Returns CG_RUN_OK, another CG_RUN_..., or RT_NO_MEMORY. */
enum { RT_NO_MEMORY = -1 };
int rt_run(const rt_module *m, const void *const in[], void *const out[], void *state, const rt_threads *threads);
/* The same of a program with dims (lower/sizes.h), for these values of them. out_dims: null, or room for the extents of all
 * outputs in turn, some of which a run may find. */
int rt_run_sized(const rt_module *m, const void *const in[], void *const out[], const int64_t dims[], int64_t out_dims[], void *state, const rt_threads *threads);
/* The same, call by call from C, each timed; adds one run to the profile. ctx: of the calling
 * thread (may differ from the module's), for errors. */
int rt_run_profiled(tn_ctx *ctx, const rt_module *m, const void *const in[], void *const out[], const int64_t dims[], void *state,
                    const rt_threads *threads, rt_profile *profile);

const ir_program *rt_module_program(const rt_module *m);
const cg_build *rt_module_kernels(const rt_module *m);
const cg_target *rt_module_target(const rt_module *m);
int64_t rt_module_arena_bytes(const rt_module *m, int workers);
/* The packed blob with its header, cg_blob_bytes long; null when there are no weights. */
const void *rt_module_weights(const rt_module *m);

/* The packed blob of a program with its header, without code to run it: for other machines' programs. It lives as
 * long as ctx; null when there are no weights. `raw`: other tensors to pack from, by number of the raw slot (null, all or
 * one: the program's own). */
const void *rt_pack_weights(tn_ctx *ctx, const ir_program *p, const void *const raw[], int jobs);

/* What a module takes to become files. */
typedef struct rt_object_options {
  cg_object_options files;
  const cg_target *target; /* null: this machine */
  int jobs;
  const cg_cache *cache;
} rt_object_options;
/* The whole way from a program to the files of cg_object_end: kernels for the target; weights packed
 * here by kernels for this machine, unless the mode is `pointer`. */
void rt_write_object(tn_ctx *ctx, const ir_program *p, const rt_object_options *o);
#endif
