/* eager.h — define by run: a graph that grows while its operations are called, and has values.
 *
 *   tn_add(g, a, b) ── fe_eager_node ── seen before? ──> its node again, a new handle
 *   tn_value(g, t)  ── fe_eager_eval ── plan of these results? ──> run
 *                                        else: their cone ── text ── module cache ── compile
 *
 * Nodes are shared: the same op on the same nodes is one node, whichever step calls it. What is
 * new in each step is data, so a step's arrays are numbered in the order of their use and the k-th
 * of a type is the same leaf each time. A repeated step thus finds every node, ends at the same
 * results, and a plan is found by their numbers: no text is printed, nothing is compiled.
 *
 * A *trace* is what is recorded between two ends: the end of the outermost scope, or an evaluation
 * that updates parameters. Handles that have a value outlive it, as leaves of later traces. */
#ifndef FE_EAGER_H
#define FE_EAGER_H
#include "frontend/api.h"
#include "runtime/module.h"

typedef struct fe_buffer { /* contents of a tensor, counted */
  struct fe_buffer *next; /* in the list of free ones */
  void *raw;              /* what was allocated */
  void *data;             /* aligned to 64 */
  size_t room;
  int refs;
} fe_buffer;

typedef struct fe_bound { /* by id of an ir_value: its contents in this trace, or for ever (parameters) */
  fe_buffer *buf;
  uint64_t trace;
} fe_bound;

typedef struct fe_entry { /* a node that was recorded */
  struct fe_entry *next;
  uint64_t hash;
  const char *op, *attrs;
  int nin, nout;
  ir_value **in;
  ir_value **out;
} fe_entry;

typedef struct fe_leaf { /* arrays and constants that were seen */
  struct fe_leaf *next;
  uint64_t hash;
  int number; /* of an array in its trace; -1: a constant with the data of v */
  ir_value *v;
} fe_leaf;

typedef struct fe_pending { /* an update that has not run */
  tn_tensor *kept;
  ir_value *value;
} fe_pending;

typedef struct fe_plan { /* how to compute some results */
  struct fe_plan *next;
  uint64_t hash;
  int nkey;
  uint32_t *key;       /* ids: results, -1, updates, -1, what is known in the middle */
  struct fe_compiled *compiled;
  int nin, nout;
  ir_value **in;       /* leaves and known nodes, in the module's order */
  ir_value **out;
} fe_plan;

typedef struct fe_compiled { /* by canonical text */
  struct fe_compiled *next;
  uint64_t hash;
  const char *text;
  tn_ctx *own;
  rt_module *module;
  uint64_t used;       /* number of the last run */
  bool pinned;         /* a function holds a plan of it */
} fe_compiled;

typedef struct fe_made {
  tn_tensor *t;
  uint32_t serial; /* the handle is still that one */
} fe_made;

enum { FE_TABLE = 4096 /* chains, by hash */, FE_MODULES = 1000 /* that are kept, if nobody says otherwise */ };

struct fe_eager {
  tn_options options;
  bool each;            /* run every operation at once */
  bool capturing;       /* a function is recorded: no value may be asked for */
  uint64_t trace;       /* number of the running one, from 1 */
  int nleaves;          /* arrays of this trace so far */
  fe_entry *entries[FE_TABLE];
  fe_leaf *leaves[FE_TABLE];
  fe_plan *plans[FE_TABLE];
  fe_compiled *modules;
  int nmodules, most;   /* and how many may be kept */
  fe_bound *bound;
  size_t nbound;
  int nheld, held_room; /* what is bound for this trace alone */
  uint32_t *held;
  int nknown, known_room; /* nodes with values in this trace, in order */
  uint32_t *known;
  int nupdates, updates_room;
  fe_pending *updates;
  int nscopes, *scopes; /* where each open scope begins among `made` */
  int nmade, made_room;
  fe_made *made;        /* handles that a scope will release */
  int nrecent;          /* of them, made by the call that is running: from here on */
  tn_tensor *live;      /* all handles, newest first */
  tn_tensor *free, *free_last; /* released ones, oldest first: a late use is noticed */
  int nfree;
  fe_buffer *spare;
  int nspare;
  int room;             /* of `values`, operands of the node that is recorded */
  ir_value **values;
  void *scratch;
  size_t scratch_room;
  int ncompiled, nruns; /* counts for tn_eager_counts */
};

/* The ir_value that stands for t in the running trace. Throws when t was released, belongs to
 * another graph, or was not computed in time. */
ir_value *fe_eager_value(tn_ctx *ctx, tn_graph *g, tn_tensor *t);
/* As fe_node; the node is recorded or found again. */
tn_status fe_eager_node(tn_graph *g, const char *op, const char *attrs, int nin, tn_tensor *const *in, int nout, tn_tensor **out);
/* A handle of v. Throws. */
tn_tensor *fe_eager_handle(tn_ctx *ctx, tn_graph *g, ir_value *v);
tn_tensor *fe_eager_const(tn_ctx *ctx, tn_graph *g, tn_dtype t, int rank, const int64_t *dims, const void *data);
/* Parameters and states by name: made when first asked for, their contents from data, init or zeros. */
tn_tensor *fe_eager_kept(tn_ctx *ctx, tn_graph *g, const char *name, ir_value_kind kind, tn_dtype t, int rank, const int64_t *dims,
                         const void *data, const fe_init *init);
tn_status fe_eager_update(tn_graph *g, tn_tensor *kept, tn_tensor *value);
/* The end of a public call: releases what it made but `result` and what fe_eager_keep named. */
void fe_eager_leave(tn_graph *g, tn_tensor *result);
void fe_eager_keep(tn_graph *g, int n, tn_tensor *const *ts);
/* Computes what is pending of ts, and all updates if `updates`. *plan (may be null): what ran, null: nothing did. */
tn_status fe_eager_eval(tn_graph *g, int n, tn_tensor *const *ts, bool updates, fe_plan **plan);
/* eager_run.c: the plan of a key, made when it is new; running one: `in` by plan->in, `out` gets new buffers. Both throw. */
fe_plan *fe_plan_get(tn_ctx *ctx, tn_graph *g, int nroots, ir_value **roots, int nupdates, int nkey, const uint32_t *key);
void fe_plan_run(tn_ctx *ctx, tn_graph *g, const fe_plan *p, fe_buffer *const *in, fe_buffer **out);
fe_buffer *fe_buffer_new(tn_ctx *ctx, struct fe_eager *e, size_t bytes); /* throws */
void fe_buffer_drop(tn_ctx *ctx, struct fe_eager *e, fe_buffer *b);
fe_buffer *fe_bound_get(const struct fe_eager *e, const ir_value *v);
/* Forgets modules, those that ran longest ago first, until at most so many are left (more, where functions hold them). */
void fe_eager_trim(struct fe_eager *e, int most);
/* Contents of parameters and states as the readers and writers of files see them, and back. */
void fe_eager_expose(tn_graph *g);
void fe_eager_absorb(tn_graph *g);
#endif
