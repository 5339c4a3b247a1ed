/* lookup.h — schedules for a compile: from a plan file, else from the store, else the default.
 *
 *   # tenon plan 1
 *   # a comment
 *   target "x86-64 cpu=..."
 *   layout NHWC            (when it is not the usual one)
 *   cut 0123456789abcdef   (a group that is cut, lw_group; any number)
 *   kernel 0f9c...32 hexadecimal digits "conv_3"
 *   split v1 32 -> vo vi
 *   ...
 *
 * A kernel is known by a hash of its canonical text, and its loops and buffers by their names
 * there. In a plan, steps up to the next `kernel` are its schedule (none: as the op wrote it).
 * Plans are made to be committed: sorted by hash.
 */
#ifndef AT_LOOKUP_H
#define AT_LOOKUP_H
#include "autotune/store.h"
#include "lower/lower.h"

typedef struct at_lookup at_lookup;

/* `store` may be null. `plan`: text of a plan file, or null; `plan_name` is for messages.
 * `threads` that will run the code (0 and 1: one): what was found with so many counts, else what was found with one.
 * Throws TN_EINPUT when the plan is malformed. A plan of another target is taken with a warning. */
at_lookup *at_lookup_new(tn_ctx *ctx, at_store *store, const cg_target *t, int threads, const char *plan, const char *plan_name);
/* As lw_options.schedule, with the at_lookup as user: null is a miss. What cannot be read or is
 * not legal is a miss with a warning. */
const char *at_lookup_schedule(void *user, tn_ctx *ctx, const ir_kernel *k);
/* How often it hit and missed; kernels of the last misses, as many as n, into names (may be null). */
typedef struct at_lookup_tally {
  int plan, store, stale, missed;
} at_lookup_tally;
at_lookup_tally at_lookup_tally_of(const at_lookup *l);
/* Whether the schedule of this kernel was found. */
bool at_lookup_knows(const at_lookup *l, tn_ctx *ctx, const ir_kernel *k);

/* 32 hexadecimal digits of a kernel's canonical text. */
const char *at_kernel_hash(tn_ctx *ctx, const ir_kernel *k);
/* The plan that fixes all kernels of a program as they are scheduled. `cuts`: hashes, apart by blanks; may be null. */
const char *at_plan_print(tn_ctx *ctx, const ir_program *p, const cg_target *t, lw_layout_choice layout, const char *cuts);

/* ---- layouts: a decision for a whole graph, by times of whole runs ---- */

/* "NCHW", "NHWC", "NCHWc"; null for AUTO. */
const char *at_layout_name(lw_layout_choice layout);
/* What stands for a graph in keys of whole runs: a hash of all that its times depend on, without names and weights. */
const char *at_graph_text(tn_ctx *ctx, const ir_graph *g);
/* The layout that won under a key whose configs are "layout NAME"; AUTO: none. `store` may be null. */
lw_layout_choice at_layout_won(at_store *store, const at_key *key);
/* The key under which a graph's runs on so many threads are kept; their config is "layout NAME". `g`: before the passes. */
at_key at_layout_key(tn_ctx *ctx, const ir_graph *g, const cg_target *t, int threads);
/* The key under which whole runs with and without the winners of its kernels are kept: configs "tuned", "untuned". */
at_key at_whole_key(tn_ctx *ctx, const ir_graph *g, const cg_target *t, int threads);
/* Whole runs found the winners to be no gain: the graph is to be compiled without. `l` may be null. */
bool at_lookup_untuned(const at_lookup *l, const at_key *whole);
/* What plan or store say; AUTO: nothing. `l` may be null. */
lw_layout_choice at_lookup_layout(const at_lookup *l, const at_key *key);
/* The key under which runs with groups cut are kept; configs are "cut HASH HASH ...", "cut" alone for none. */
at_key at_cut_key(tn_ctx *ctx, const ir_graph *g, const cg_target *t, int threads);
/* The hashes (lw_group) that plan or store say, apart by blanks; null: none. */
const char *at_lookup_cuts(tn_ctx *ctx, const at_lookup *l, const at_key *key);
/* As lw_options.cut, with such a list (or null) as user. */
bool at_listed_cut(void *cuts, tn_ctx *ctx, const lw_group *group);
#endif
