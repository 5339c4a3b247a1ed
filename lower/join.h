/* join.h — concatenation without copies: its parts are stored where they belong in it.
 *
 *   Concat(a, b) at s  ──>  a is stored at s, b at s + d; the Concat itself is an alias
 *
 * A value may be part of several concatenations if it lies in the same place of all: those of a densely connected
 * network are the beginnings of the last one. */
#ifndef LW_JOIN_H
#define LW_JOIN_H
#include "lower/lower.h"

typedef struct lw_place {
  ir_value *base; /* the value's memory is inside that of this one; null: it has its own */
  int64_t offset; /* bytes */
} lw_place;

/* By value id. Gives group LW_GROUP_ALIAS to each Concat whose parts can all be stored inside it, where `choose`; else looks
 * at those that have it. Nodes stand in order, with uses counted, constants marked, aliases and groups with roots known:
 * what no group has yet could be computed where the result is read, and is stored only where that is stored anyway. */
lw_place *lw_join_parts(tn_ctx *ctx, ir_graph *g, bool choose);
#endif
