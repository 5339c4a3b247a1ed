/* grad_memory.c — what the way back of a gradient keeps within a budget.
 *
 *   all results                       if they fit
 *   those of products, convolutions   else: what is between them is cheap
 *   those that cross 1, 2, .. cuts    else: each cut where the least is alive nearby. With k cuts the way back
 *                                     holds what crosses them and one segment, about 2 sqrt(n) of n layers
 *
 * after Chen et al., "Training deep nets with sublinear memory cost", 2016. */
#include "lower/grad.h"
#include "ir/text.h"
#include <string.h>

typedef struct item { /* a result of one of the nodes */
  ir_value *v;
  int64_t bytes;
  int made, last; /* numbers of the nodes that make it and read it last */
} item;

typedef struct keeper {
  tn_ctx *ctx;
  int n, nitems;
  item *items;
  int64_t *alive; /* behind node i: bytes of what is read later */
} keeper;

static void list(keeper *k, ir_node *const *order) {
  ir_map at = {.ctx = k->ctx};
  int room = 0;
  for (int i = 0; i < k->n; i++) room += order[i]->nout;
  k->items = IR_NEW_ARRAY(k->ctx, item, room + 1);
  k->alive = IR_NEW_ARRAY(k->ctx, int64_t, k->n + 1);
  for (int i = 0; i < k->n; i++) {
    for (int j = 0; j < order[i]->nin; j++) {
      item *t = order[i]->in[j] ? ir_map_get(&at, order[i]->in[j]) : NULL;
      if (t) t->last = i;
    }
    for (int j = 0; j < order[i]->nout; j++) {
      ir_value *v = order[i]->out[j];
      if (!v || !ir_is_float(v->dtype)) continue;
      k->items[k->nitems] = (item){v, ir_value_elements(k->ctx, v) * (int64_t)ir_dtype_bytes(v->dtype), i, i};
      ir_map_set(&at, v, &k->items[k->nitems++]);
    }
  }
  for (int i = 0; i < k->nitems; i++)
    for (int j = k->items[i].made; j < k->items[i].last; j++) k->alive[j] += k->items[i].bytes;
}

static bool is_dear(const ir_node *n) { return n->op->kind == IR_OP_CONTRACTION || n->op->kind == IR_OP_KERNEL; }

/* Near each k-th of the nodes, the place behind which the least is alive. */
static void place_cuts(const keeper *k, int cuts, int *at) {
  int reach = k->n / (4 * (cuts + 1));
  for (int c = 0; c < cuts; c++) {
    int middle = (int)((int64_t)k->n * (c + 1) / (cuts + 1)) - 1;
    at[c] = middle;
    for (int d = -reach; d <= reach; d++)
      if (middle + d >= 0 && middle + d < k->n - 1 && k->alive[middle + d] < k->alive[at[c]]) at[c] = middle + d;
  }
}

/* What crosses the cuts, and the largest segment between them. */
static int64_t cost(const keeper *k, int cuts, const int *at, ir_value **kept, int *nkept) {
  int64_t crossing = 0, largest = 0;
  *nkept = 0;
  for (int c = 0; c <= cuts; c++) {
    int from = c ? at[c - 1] : -1, to = c < cuts ? at[c] : k->n - 1;
    int64_t segment = 0;
    for (int i = 0; i < k->nitems; i++) {
      const item *t = &k->items[i];
      if (t->made <= from || t->made > to) continue;
      if (t->last > to) crossing += t->bytes, kept[(*nkept)++] = t->v;
      else segment += t->bytes;
    }
    if (segment > largest) largest = segment;
  }
  return crossing + largest;
}

int lw_grad_kept(tn_ctx *ctx, int n, ir_node *const *order, int64_t memory, ir_value ***kept) {
  keeper k = {.ctx = ctx, .n = n};
  list(&k, order);
  int64_t all = 0, dear = 0, least = INT64_MAX;
  int count = 0, best = 0;
  ir_value **some = IR_NEW_ARRAY(ctx, ir_value *, k.nitems + 1);
  *kept = IR_NEW_ARRAY(ctx, ir_value *, k.nitems + 1);
  for (int i = 0; i < k.nitems; i++) {
    all += k.items[i].bytes;
    if (is_dear(order[k.items[i].made])) dear += k.items[i].bytes, (*kept)[count++] = k.items[i].v;
  }
  if (all <= memory) return -1;
  if (dear <= memory) return count;
  int *at = IR_NEW_ARRAY(ctx, int, n + 1);
  for (int cuts = 1; cuts < n && cuts <= 64 && least > memory; cuts += 1 + cuts / 8) {
    place_cuts(&k, cuts, at);
    int64_t bytes = cost(&k, cuts, at, some, &count);
    if (bytes >= least) continue;
    least = bytes;
    best = count;
    memcpy(*kept, some, (size_t)count * sizeof *some);
  }
  return best;
}
