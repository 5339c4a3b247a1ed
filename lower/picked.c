/* picked.c — see picked.h; the op tenon:ConvPicked. */
#include "lower/picked.h"
#include "ir/picked.h"
#include "lower/window.h"
#include <stdlib.h>
#include <string.h>

enum { GROUP = IR_PICKED_GROUP, PANEL = 16, STEP = 4, MOST_SUM = 128, TRIES = 4000 };

/* ---- the matching ---- */

typedef struct match {
  uint32_t fits[GROUP]; /* bit j of fits[i]: channels i and j make a pair */
  int partner[GROUP];   /* itself: alone */
  int tries;
} match;

/* The channels in `left`, `alone` of which may stay without a partner; the one with the fewest choices first. */
static bool match_all(match *m, uint32_t left, int alone) {
  if (!left) return true;
  if (--m->tries < 0) return false;
  int at = -1, least = GROUP + 1;
  for (uint32_t r = left; r; r &= r - 1) {
    int i = __builtin_ctz(r), n = __builtin_popcount(m->fits[i] & left);
    if (n < least) at = i, least = n;
  }
  for (uint32_t r = m->fits[at] & left; r; r &= r - 1) {
    int other = __builtin_ctz(r);
    m->partner[at] = other, m->partner[other] = at;
    if (match_all(m, left & ~(1u << at) & ~(1u << other), alone)) return true;
  }
  m->partner[at] = at;
  return alone > 0 && match_all(m, left & ~(1u << at), alone - 1);
}

/* w: [channel][output] of one group and panel. The channels of each step into `order`, -1 for none; the number of steps. */
static int arrange(int8_t w[GROUP][PANEL], int8_t order[GROUP][STEP]) {
  match m = {0};
  for (int i = 0; i < GROUP; i++)
    for (int j = i + 1; j < GROUP; j++) {
      int most = 0;
      for (int q = 0; q < PANEL; q++) {
        int s = abs(w[i][q] + w[j][q]); /* of unlike signs neither product leaves 16 bits */
        most = s > most ? s : most;
      }
      if (most <= MOST_SUM) m.fits[i] |= 1u << j, m.fits[j] |= 1u << i;
    }
  for (int alone = 0;; alone += 4) { /* four alone are two pairs, a step, more */
    m.tries = TRIES;
    if (alone >= GROUP || match_all(&m, (1u << GROUP) - 1, alone)) break;
    for (int i = 0; i < GROUP; i++) m.partner[i] = i;
  }
  int n = 0;
  memset(order, -1, GROUP * STEP);
  for (int i = 0; i < GROUP; i++) {
    if (m.partner[i] < i) continue;
    order[n / 2][n % 2 * 2] = (int8_t)i;
    if (m.partner[i] > i) order[n / 2][n % 2 * 2 + 1] = (int8_t)m.partner[i];
    n++;
  }
  return (n + 1) / 2;
}

/* ---- the constants ---- */

typedef struct picking {
  int64_t k, c, taps, steps, most; /* steps: the most that a panel takes at a tap; most: those there is room for */
  const int8_t *w;
  int8_t *to;      /* [k / PANEL][taps][most][PANEL][STEP] */
  uint16_t *group; /* [k / PANEL][taps][most] */
  uint8_t *pick;   /* the same, [STEP] */
} picking;

static bool pick_panel(picking *p, int64_t panel, int64_t tap) {
  int64_t row = (panel * p->taps + tap) * p->most, n = 0;
  for (int64_t b = 0; b < p->c / GROUP; b++) {
    int8_t w[GROUP][PANEL], order[GROUP][STEP];
    for (int q = 0; q < PANEL; q++)
      for (int i = 0; i < GROUP; i++) w[i][q] = p->w[((panel * PANEL + q) * p->c + b * GROUP + i) * p->taps + tap];
    int steps = arrange(w, order);
    if (n + steps > p->most) return false;
    for (int s = 0; s < steps; s++, n++) {
      p->group[row + n] = (uint16_t)b;
      for (int i = 0; i < STEP; i++) {
        int c = order[s][i];
        p->pick[(row + n) * STEP + i] = (uint8_t)(c < 0 ? 0 : c);
        for (int q = 0; q < PANEL && c >= 0; q++) p->to[((row + n) * PANEL + q) * STEP + i] = w[c][q];
      }
    }
  }
  if (n > p->steps) p->steps = n;
  return true;
}

bool lw_pick(ir_graph *g, const ir_value *w, ir_value *in[4]) {
  tn_ctx *ctx = g->ctx;
  picking p = {.k = ir_dim(ctx, w, 0), .c = ir_dim(ctx, w, 1), .taps = 1, .w = w->data};
  for (int i = 2; i < w->rank; i++) p.taps *= ir_dim(ctx, w, i);
  if (p.k < PANEL || p.c < GROUP || p.taps < 1 || p.k % PANEL || p.c % GROUP || p.c / GROUP > UINT16_MAX) return false;
  p.most = (p.c / STEP + p.c / STEP / 8 + 1) / 2 * 2;
  int64_t panels = p.k / PANEL, rows = panels * p.taps, all = rows * p.most;
  p.to = calloc((size_t)(all * PANEL * STEP), 1), p.group = calloc((size_t)all, 2), p.pick = calloc((size_t)all, STEP);
  bool done = p.to && p.group && p.pick;
  for (int64_t panel = 0; panel < panels && done; panel++)
    for (int64_t tap = 0; tap < p.taps && done; tap++) done = pick_panel(&p, panel, tap);
  p.steps += p.steps % 2;
  if (done) {
    int8_t *weights = IR_NEW_ARRAY(ctx, int8_t, p.k * STEP * p.steps * p.taps);
    uint16_t *group = IR_NEW_ARRAY(ctx, uint16_t, rows * p.steps);
    uint8_t *pick = IR_NEW_ARRAY(ctx, uint8_t, rows * p.steps * STEP);
    for (int64_t row = 0; row < rows; row++)
      for (int64_t s = 0; s < p.steps; s++) {
        int64_t from = row * p.most + s;
        group[row * p.steps + s] = p.group[from];
        memcpy(pick + (row * p.steps + s) * STEP, p.pick + from * STEP, STEP);
        for (int q = 0; q < PANEL; q++)
          for (int i = 0; i < STEP; i++)
            weights[((row / p.taps * PANEL + q) * STEP * p.steps + s * STEP + i) * p.taps + row % p.taps] = p.to[(from * PANEL + q) * STEP + i];
      }
    int64_t dims[IR_MAX_RANK] = {p.k, STEP * p.steps};
    for (int i = 2; i < w->rank; i++) dims[i] = ir_dim(ctx, w, i);
    in[1] = ir_graph_const(g, NULL, TN_I8, w->rank, dims, weights, false);
    in[2] = ir_graph_const(g, NULL, TN_U16, 3, (int64_t[]){panels, p.taps, p.steps}, group, false);
    in[3] = ir_graph_const(g, NULL, TN_U8, 3, (int64_t[]){panels, p.taps, STEP * p.steps}, pick, false);
  }
  free(p.to), free(p.group), free(p.pick);
  return done;
}

/* ---- the op: x u8 [n, c, ..], weights, group, pick as above; sums in i32 ---- */

/* What generated code relies on: no pair of weights leaves 16 bits, and picks are below 16. */
static void need_pairs(tn_ctx *ctx, const ir_node *n) {
  const ir_value *w = n->in[1], *pick = n->in[3];
  if (!w->data || !ir_static(w) || !pick->data || !ir_static(pick)) lw_bad(ctx, n, "its weights or its table are not known");
  const uint8_t *picks = pick->data;
  for (int64_t i = ir_value_elements(ctx, pick); i-- > 0;)
    if (picks[i] >= GROUP) lw_bad(ctx, n, "channel %d of a group of %d", picks[i], GROUP);
  int64_t k = ir_dim(ctx, w, 0), c = ir_dim(ctx, w, 1), taps = 1;
  for (int i = 2; i < w->rank; i++) taps *= ir_dim(ctx, w, i);
  const int8_t *v = w->data;
  int most = 0;
  for (int64_t row = 0; row < k * c; row += 2)
    for (int64_t t = 0; t < taps; t++) {
      int s = abs(v[row * taps + t] + v[(row + 1) * taps + t]);
      most = s > most ? s : most;
    }
  if (most > MOST_SUM) lw_bad(ctx, n, "two weights that are multiplied together add up to %d", most);
}

static void picked_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *w = n->in[1], *group = n->in[2], *pick = n->in[3];
  int rank = x->rank - 2;
  int64_t k, c;
  if (x->dtype != TN_U8 || w->dtype != TN_I8 || group->dtype != TN_U16 || pick->dtype != TN_U8) lw_bad(ctx, n, "operands of other types than u8, i8, u16, u8");
  if (rank < 1 || w->rank != x->rank) lw_bad(ctx, n, "an input of rank %d, weights of rank %d", x->rank, w->rank);
  lw_need_rank(ctx, n, 2, 3);
  lw_need_rank(ctx, n, 3, 3);
  if (!ix_const_value(w->dims[0], &k) || k % PANEL || !ix_const_value(w->dims[1], &c) || c % STEP) lw_bad(ctx, n, "%s outputs, %s channels of weights", ix_print(ctx, w->dims[0]), ix_print(ctx, w->dims[1]));
  if (!ix_is_int(group->dims[0], k / PANEL) || !ix_is_int(group->dims[2], c / STEP) || !ix_is_int(pick->dims[0], k / PANEL) || !ix_is_int(pick->dims[2], c)) lw_bad(ctx, n, "tables of other sizes than the weights");
  need_pairs(ctx, n);
  lw_window v;
  lw_window_of(ctx, n, w->dims + 2, &v);
  ix dims[IR_MAX_RANK] = {x->dims[0], w->dims[0]};
  for (int i = 0; i < rank; i++) dims[i + 2] = v.out[i];
  lw_set(n, 0, TN_I32, x->rank, dims);
}

static void picked_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  const ir_value *x = n->in[0], *w = n->in[1];
  int rank = x->rank - 2;
  lw_window v;
  lw_window_of(ctx, n, w->dims + 2, &v);
  ix o[IR_MAX_RANK], tap[LW_MAX_SPATIAL], in[IR_MAX_RANK], weight[IR_MAX_RANK], at[3];
  o[0] = in[0] = ib_loop(ib, "n", x->dims[0]);
  o[1] = weight[0] = ib_loop(ib, "k", w->dims[0]);
  lw_loops(b, lw_axis_names(rank), rank, v.out, o + 2);
  ir_buf *acc = lw_accumulator(b, TN_I32);
  ix c = weight[1] = ib_loop(ib, "c", w->dims[1]);
  lw_loops(b, lw_tap_names(rank), rank, v.taps, tap);
  at[0] = ix_divi(ctx, o[1], PANEL), at[1] = ix_index(ctx, 0);
  for (int i = 0; i < rank; i++) weight[i + 2] = tap[i], at[1] = ix_add(ctx, ix_mul(ctx, at[1], v.taps[i]), tap[i]);
  at[2] = ix_divi(ctx, c, STEP);
  ix group = ix_cast(ctx, TN_INDEX, lw_in(b, n, 2, at));
  at[2] = c;
  ix pick = ix_remi(ctx, ix_cast(ctx, TN_INDEX, lw_in(b, n, 3, at)), GROUP);
  in[1] = ix_add(ctx, ix_muli(ctx, ix_min(ctx, group, ix_addi(ctx, ix_divi(ctx, x->dims[1], GROUP), -1)), GROUP), pick);
  lw_window_at(ctx, &v, o + 2, tap, in + 2);
  ib_if(ib, lw_window_inside(ctx, &v, in + 2));
  lw_accumulate(b, acc, lw_in(b, n, 0, in), lw_in(b, n, 1, weight));
  ib_end(ib);
  ib_end_n(ib, rank + 1);
  lw_out(b, n, 0, o, ib_get(ib, acc));
  ib_end_n(ib, rank + 2);
}

const ir_op lw_ops_picked[] = {
    {.name = "ConvPicked", .domain = "tenon", .kind = IR_OP_CONTRACTION, .since = 1, .min_in = 4, .max_in = 4, .min_out = 1, .max_out = 1,
     .attrs = "auto_pad:s dilations:I kernel_shape:I group:i pads:I strides:I", .infer = picked_infer, .build = picked_build},
    {0}};
