/* build_internal.h — the state behind lw_build, and the entry that makes a kernel of a group. */
#ifndef LW_BUILD_INTERNAL_H
#define LW_BUILD_INTERNAL_H
#include "lower/build.h"

typedef struct lw_param {
  ir_value *value;
  ir_buf *buf;
} lw_param;

typedef struct lw_memo { /* an inlined value at an index */
  const ir_value *value;
  const ix *index;
  ix result;
  struct lw_memo *next;
} lw_memo;

enum { LW_MEMO_BUCKETS = 64 };

struct lw_build {
  tn_ctx *ctx;
  ir_builder *ib;
  const ir_node *root;     /* the node with `build`; null for a group of values alone */
  int group;               /* nodes of this group are inlined; -1: only the root itself */
  bool in_pack;            /* a kernel of the pack section: its operands are not packed yet */
  int nparams;
  lw_param *params;
  /* While the epilogue of lw_out is expanded: this value at this index is `given`. */
  const ir_value *given_value;
  const ix *given_index;
  ix given;
  lw_memo *memo[LW_MEMO_BUCKETS];
  bool (*stored)(void *user, const ir_value *v); /* whether a value leaves the group */
  void *user;
};

/* A kernel and the values its parameters stand for, inputs and outputs mixed in order of first use. */
typedef struct lw_kernel {
  ir_kernel *kernel;
  int nvalues;
  ir_value **values;
} lw_kernel;

/* The kernel of a group: `root` (or null) and the nodes whose ->group is `group`.
 * `outs`: the values to store. */
lw_kernel lw_build_group(tn_ctx *ctx, const char *name, ir_node *root, int group, int nnodes, ir_node *const *nodes,
                         bool in_pack, bool (*stored)(void *user, const ir_value *v), void *user);
#endif
