/* program_internal.h — what makes a program of groups: its state, and the order of groups. */
#ifndef LW_PROGRAM_INTERNAL_H
#define LW_PROGRAM_INTERNAL_H
#include "lower/build_internal.h"
#include "lower/lower.h"

typedef struct lw_store { /* of one value, by value id */
  ir_value *value;
  struct lw_store *base; /* alias: of this storage */
  int64_t offset;       /* bytes into base */
  bool needed;          /* somebody's operand or a graph output, and not inlined */
  bool run_use;         /* read by the run section */
  int slot;             /* -1: none yet */
  int kind;             /* ir_slot_kind, or -1 */
  int index;
  int64_t bytes;
  int first, last;      /* life in its section, instruction numbers; -1 none */
  int life;             /* index into the lifetimes */
  bool renewed;         /* the next contents of `base`, a state or input, stored there */
} lw_store;

typedef struct lw_update { /* graph->updates[i] */
  ir_value *target, *value;
  int group;       /* that computes the value in place, after the groups in `before`; -1: copied at the end */
  int nbefore;
  int *before;
  int number, depth; /* for sorting */
} lw_update;

typedef struct lw_maker {
  tn_ctx *ctx;
  ir_graph *g;
  const lw_options *options;
  ir_program *p;
  lw_store **of;          /* by value id */
  uint32_t nids;
  int ngroups;
  ir_node **root;
  ir_node ***members;
  int *nmembers;
  bool *group_packed;
  uint8_t *state;       /* by group */
  int *order;
  int norder;
  int nupdates;
  lw_update *updates;
  uint32_t *seen;       /* by group: stamp of a search */
  int *depth;           /* by group; 0: not yet known */
  uint32_t stamp;
  const char **texts;   /* by kernel: interned text of the unscheduled kernel, without names */
  int ncalls;
  struct call *calls;
  int nrelayouts;
  struct relayout *relayouts;
  int nlater;
  ir_inst *later;       /* how regions pack: behind all else, as their temporaries lie where those of this program do */
} lw_maker;

/* Members, roots and sections of all groups of m->g. */
void lw_collect_groups(lw_maker *m);
/* Which updates are stored over the old contents, and what must have run by then. */
void lw_plan_updates(lw_maker *m);
/* m->order: what outputs and updates need, each group after those it needs. */
void lw_order_groups(lw_maker *m);
/* The group that computes v, -1: none does. */
int lw_group_of(const ir_value *v);
#endif
