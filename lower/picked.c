/* picked.c — see picked.h; the op tenon:ConvPicked. */
#include "lower/picked.h"
#include "ir/picked.h"
#include "lower/window.h"
#include <stdlib.h>
#include <string.h>

enum { GROUP = IR_PICKED_GROUP, LANES = IR_PICKED_LANES, PANEL = 2 * LANES, FOUR = IR_PICKED_STEP, EIGHT = 2 * FOUR, MOST_SUM = 128, TRIES = 1000 };

/* ---- one lane and group ---- */

typedef uint64_t parts; /* four sums, 16 bits each: of the positive and of the negative weights of a lane's two outputs */

/* Whether one of them is more than `most`; they are below 2^15. */
static bool is_over(parts p, int most) { return (p + (parts)(0x7fff - most) * UINT64_C(0x0001000100010001)) & UINT64_C(0x8000800080008000); }

typedef struct bins { /* channels whose products are added up in 16 bits, at most `room` in a bin */
  parts of[GROUP], sum[GROUP];
  int8_t in[GROUP][FOUR];
  int n[GROUP], room[GROUP], order[GROUP], count, tries;
} bins;

/* How a group may be taken: `eights` of two bins of four, after `fours` of two bins of two, or of one. */
static const struct form {
  int eights, fours, room;
} forms[] = {{2, 0, 0}, {1, 2, 2}, {0, 4, 2}, {0, 5, 2}, {0, 6, 2}, {0, 8, 1}};

/* Puts the channels from order[at] on, large weights first, into the bins. */
static bool fill(bins *b, int at) {
  if (at == GROUP) return true;
  int c = b->order[at], empty = 0;
  for (int i = 0; i < b->count; i++) {
    if (b->n[i] == b->room[i] || is_over(b->sum[i] + b->of[c], MOST_SUM)) continue;
    if (!b->n[i] && b->room[i] == empty) continue; /* as the empty one before */
    if (--b->tries < 0) return false;
    if (!b->n[i]) empty = b->room[i];
    b->in[i][b->n[i]++] = (int8_t)c, b->sum[i] += b->of[c];
    if (fill(b, at + 1)) return true;
    b->n[i]--, b->sum[i] -= b->of[c];
  }
  return false;
}

/* b->of is set. The channels of each place into `order`, eights first, -1 for none. */
static bool arrange(bins *b, const struct form *f, int8_t *order) {
  int small = 2 * f->fours;
  b->count = small + 2 * f->eights, b->tries = TRIES;
  for (int i = 0; i < b->count; i++) b->n[i] = 0, b->sum[i] = 0, b->room[i] = i < small ? f->room : FOUR;
  parts all = 0;
  for (int i = 0; i < GROUP; i++) all += b->of[i];
  if (is_over(all, b->count * MOST_SUM) || !fill(b, 0)) return false;
  memset(order, -1, (size_t)(f->eights * EIGHT + f->fours * FOUR));
  for (int i = 0; i < b->count; i++)
    for (int k = 0; k < b->n[i]; k++) {
      int large = i - small, step = large < 0 ? f->eights * EIGHT + i / 2 * FOUR : large / 2 * EIGHT;
      order[step + (large < 0 ? i : large) % 2 * 2 + k % 2 + k / 2 * FOUR] = b->in[i][k];
    }
  return true;
}

/* w: [channel][output] of one group and panel, order: [lane]; the first form that all lanes have. */
static const struct form *arrange_lanes(int8_t w[GROUP][PANEL], int8_t order[LANES][GROUP * FOUR]) {
  bins b[LANES];
  for (int l = 0; l < LANES; l++) {
    int most[GROUP];
    for (int i = 0; i < GROUP; i++) {
      int v[2] = {w[i][l], w[i][l + LANES]}, at = i;
      parts p = 0;
      for (int q = 0; q < 2; q++) p |= (parts)abs(v[q]) << (32 * q + 16 * (v[q] < 0));
      int sum = abs(v[0]) + abs(v[1]);
      b[l].of[i] = p;
      for (; at > 0 && most[at - 1] < sum; at--) most[at] = most[at - 1], b[l].order[at] = b[l].order[at - 1];
      most[at] = sum, b[l].order[at] = i;
    }
  }
  const struct form *f = forms, *last = forms + IR_COUNT(forms) - 1;
  for (int l = 0; l < LANES && f < last;)
    if (arrange(&b[l], f, order[l])) l++;
    else f++, l = 0;
  if (f == last)
    for (int l = 0; l < LANES; l++) arrange(&b[l], f, order[l]);
  return f;
}

/* ---- all panels ---- */

typedef struct picking_step { /* two of them are an eight */
  int8_t channel[LANES][FOUR];
  uint16_t group;
} step;

typedef struct picking {
  int64_t k, c, taps, rows, most; /* rows: panels and taps; most: fours that a row may be */
  int64_t eights, fours;          /* of every row */
  const int8_t *w;
  step *steps;      /* [rows][most]: eights from the start, fours from the end */
  int64_t *e, *f;   /* [rows]: how many */
} picking;

/* What a step costs: instructions for a row and a vector, half of them; words take COST_WORDS for four channels. */
enum { COST_EIGHT = 5, COST_FOUR = 3, COST_WORDS = 4 };

static bool pick_row(picking *p, int64_t row) {
  int64_t panel = row / p->taps, tap = row % p->taps;
  step *s = p->steps + row * p->most;
  for (int64_t g = 0; g < p->c / GROUP; g++) {
    int8_t w[GROUP][PANEL], order[LANES][GROUP * FOUR];
    for (int q = 0; q < PANEL; q++)
      for (int i = 0; i < GROUP; i++) w[i][q] = p->w[((panel * PANEL + q) * p->c + g * GROUP + i) * p->taps + tap];
    const struct form *f = arrange_lanes(w, order);
    int n = 2 * f->eights + f->fours;
    if (2 * p->e[row] + p->f[row] + n > p->most) return false;
    for (int i = 0; i < n; i++) {
      step *to = i < 2 * f->eights ? &s[2 * p->e[row] + i] : &s[p->most - ++p->f[row]];
      to->group = (uint16_t)g;
      for (int l = 0; l < LANES; l++) memcpy(to->channel[l], order[l] + i * FOUR, FOUR);
    }
    p->e[row] += f->eights;
  }
  return true;
}

/* The fours of a row when all have `eights`: an eight may go as two fours, a four in place of an eight. */
static int64_t fours_of(const picking *p, int64_t row, int64_t eights) {
  int64_t over = p->e[row] - eights, n = over > 0 ? p->f[row] + 2 * over : p->f[row] + over;
  return n > 0 ? n : 0;
}

static void choose_steps(picking *p) {
  int64_t least = INT64_MAX, most = 0;
  for (int64_t r = 0; r < p->rows; r++) most = p->e[r] > most ? p->e[r] : most;
  for (int64_t e = most > 8 ? most - most % 2 : most; e >= 0; e -= e > 8 ? 2 : 1) { /* even: two at once */
    int64_t f = 0;
    for (int64_t r = 0; r < p->rows; r++) {
      int64_t n = fours_of(p, r, e);
      f = n > f ? n : f;
    }
    if (e * COST_EIGHT + f * COST_FOUR < least) least = e * COST_EIGHT + f * COST_FOUR, p->eights = e, p->fours = f;
  }
  if (p->fours > 8) p->fours += p->fours % 2;
}

/* ---- the constants ---- */

typedef struct constants {
  int8_t *w;
  uint16_t *group;
  uint8_t *pick;
} constants;

/* s, null for none, at a row's four number `at`. */
static void put_step(const picking *p, const constants *to, int64_t row, int64_t at, const step *s) {
  int64_t all = 2 * p->eights + p->fours, panel = row / p->taps, tap = row % p->taps;
  if (!s) return;
  to->group[row * (p->eights + p->fours) + (at < 2 * p->eights ? at / 2 : at - p->eights)] = s->group;
  for (int l = 0; l < LANES; l++)
    for (int i = 0; i < FOUR; i++) {
      int c = s->channel[l][i];
      if (c < 0) continue;
      to->pick[((row * all + at) * LANES + l) * FOUR + i] = (uint8_t)c;
      for (int q = l; q < PANEL; q += LANES) {
        int64_t k = panel * PANEL + q;
        to->w[(k * all * FOUR + at * FOUR + i) * p->taps + tap] = p->w[(k * p->c + s->group * GROUP + c) * p->taps + tap];
      }
    }
}

static void put_row(const picking *p, const constants *to, int64_t row) {
  const step *s = p->steps + row * p->most, *four = s + p->most - p->f[row], *end = s + p->most;
  int64_t e = p->e[row] < p->eights ? p->e[row] : p->eights;
  for (int64_t i = 0; i < 2 * e; i++) put_step(p, to, row, i, s + i);
  for (int64_t i = e; i < p->eights && four < end; i++) put_step(p, to, row, 2 * i, four++);
  int64_t at = 2 * p->eights;
  for (int64_t i = 2 * e; i < 2 * p->e[row]; i++) put_step(p, to, row, at++, s + i);
  while (four < end) put_step(p, to, row, at++, four++);
}

static void put_constants(ir_graph *g, const picking *p, const ir_value *w, ir_value *in[4]) {
  tn_ctx *ctx = g->ctx;
  int64_t all = 2 * p->eights + p->fours, groups = p->eights + p->fours, panels = p->k / PANEL;
  constants to = {IR_NEW_ARRAY(ctx, int8_t, p->k *all *FOUR *p->taps), IR_NEW_ARRAY(ctx, uint16_t, p->rows *groups), IR_NEW_ARRAY(ctx, uint8_t, p->rows *all *FOUR *LANES)};
  for (int64_t row = 0; row < p->rows; row++) put_row(p, &to, row);
  int64_t dims[IR_MAX_RANK] = {p->k, all * FOUR};
  for (int i = 2; i < w->rank; i++) dims[i] = ir_dim(ctx, w, i);
  in[1] = ir_graph_const(g, NULL, TN_I8, w->rank, dims, to.w, false);
  in[2] = ir_graph_const(g, NULL, TN_U16, 3, (int64_t[]){panels, p->taps, groups}, to.group, false);
  in[3] = ir_graph_const(g, NULL, TN_U8, 4, (int64_t[]){panels, p->taps, all, LANES * FOUR}, to.pick, false);
}

bool lw_pick(ir_graph *g, const ir_value *w, ir_value *in[4]) {
  tn_ctx *ctx = g->ctx;
  picking p = {.k = ir_dim(ctx, w, 0), .c = ir_dim(ctx, w, 1), .taps = 1, .w = w->data};
  for (int i = 2; i < w->rank; i++) p.taps *= ir_dim(ctx, w, i);
  if (p.k < PANEL || p.c < GROUP || p.taps < 1 || p.k % PANEL || p.c % GROUP || p.c / GROUP > UINT16_MAX) return false;
  p.rows = p.k / PANEL * p.taps, p.most = p.c / FOUR * 5 / 4;
  p.steps = malloc((size_t)(p.rows * p.most) * sizeof *p.steps), p.e = calloc((size_t)p.rows, sizeof *p.e), p.f = calloc((size_t)p.rows, sizeof *p.f);
  bool done = p.steps && p.e && p.f;
  for (int64_t row = 0; row < p.rows && done; row++) done = pick_row(&p, row);
  if (done) {
    choose_steps(&p);
    done = 8 * (p.eights * COST_EIGHT + p.fours * COST_FOUR) <= 7 * p.c / FOUR * COST_WORDS;
  }
  if (done) put_constants(g, &p, w, in);
  free(p.steps), free(p.e), free(p.f);
  return done;
}

/* ---- the op: x u8 [n, c, ..], weights, group, pick as above; sums in i32 ---- */

/* What generated code relies on: no sum in 16 bits leaves them, and picks are below 16. */
static void need_narrow_sums(tn_ctx *ctx, const ir_node *n, int64_t eights) {
  const ir_value *w = n->in[1], *pick = n->in[3];
  if (!w->data || !ir_static(w) || !pick->data || !ir_static(pick)) lw_bad(ctx, n, "its weights or its table are not known");
  const uint8_t *picks = pick->data;
  for (int64_t i = ir_value_elements(ctx, pick); i-- > 0;)
    if (picks[i] >= GROUP) lw_bad(ctx, n, "channel %d of a group of %d", picks[i], GROUP);
  int64_t k = ir_dim(ctx, w, 0), c = ir_dim(ctx, w, 1), taps = 1;
  for (int i = 2; i < w->rank; i++) taps *= ir_dim(ctx, w, i);
  const int8_t *v = w->data;
  for (int64_t q = 0; q < k; q++)
    for (int64_t at = 0; at < c; at += 2) { /* the first place of a sum; an eight's second four belongs to its first */
      bool eight = at < EIGHT * eights;
      if (eight && at % EIGHT >= FOUR) continue;
      for (int64_t t = 0; t < taps; t++) {
        int sum[2] = {0, 0};
        for (int i = 0; i < (eight ? 4 : 2); i++) {
          int a = v[(q * c + at + i % 2 + i / 2 * FOUR) * taps + t];
          sum[a < 0] += abs(a);
        }
        if (sum[0] > MOST_SUM || sum[1] > MOST_SUM) lw_bad(ctx, n, "weights that are multiplied together add up to %d", sum[0] > sum[1] ? sum[0] : -sum[1]);
      }
    }
}

/* The eights of a sum over c channels: those steps that have two fours. */
static int64_t eights_of(int64_t c, int64_t steps) { return c / FOUR - steps; }

static void picked_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *x = n->in[0], *w = n->in[1], *group = n->in[2], *pick = n->in[3];
  int rank = x->rank - 2;
  int64_t k, c, steps = 0, taps = 1;
  if (x->dtype != TN_U8 || w->dtype != TN_I8 || group->dtype != TN_U16 || pick->dtype != TN_U8) lw_bad(ctx, n, "operands of other types than u8, i8, u16, u8");
  if (rank < 1 || w->rank != x->rank) lw_bad(ctx, n, "an input of rank %d, weights of rank %d", x->rank, w->rank);
  lw_need_rank(ctx, n, 2, 3);
  lw_need_rank(ctx, n, 3, 4);
  if (!ix_const_value(w->dims[0], &k) || k % PANEL || !ix_const_value(w->dims[1], &c) || c % FOUR) lw_bad(ctx, n, "%s outputs, %s channels of weights", ix_print(ctx, w->dims[0]), ix_print(ctx, w->dims[1]));
  for (int i = 2; i < w->rank; i++) taps *= ir_dim(ctx, w, i);
  int64_t eights = ix_const_value(group->dims[2], &steps) ? eights_of(c, steps) : -1;
  if (eights < 0 || EIGHT * eights > c || !ix_is_int(group->dims[0], k / PANEL) || !ix_is_int(group->dims[1], taps) || !ix_is_int(pick->dims[0], k / PANEL) || !ix_is_int(pick->dims[1], taps) || !ix_is_int(pick->dims[2], c / FOUR) || !ix_is_int(pick->dims[3], LANES * FOUR)) lw_bad(ctx, n, "tables of other sizes than the weights");
  need_narrow_sums(ctx, n, eights);
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
  ix o[IR_MAX_RANK], tap[LW_MAX_SPATIAL], in[IR_MAX_RANK], weight[IR_MAX_RANK], at[4];
  o[0] = in[0] = ib_loop(ib, "n", x->dims[0]);
  o[1] = weight[0] = ib_loop(ib, "k", w->dims[0]);
  lw_loops(b, lw_axis_names(rank), rank, v.out, o + 2);
  ir_buf *acc = lw_accumulator(b, TN_I32);
  ix c = weight[1] = ib_loop(ib, "c", w->dims[1]);
  lw_loops(b, lw_tap_names(rank), rank, v.taps, tap);
  int64_t all = 0, steps = 0; /* infer has seen to it that they are known */
  ix_const_value(w->dims[1], &all), ix_const_value(n->in[2]->dims[2], &steps);
  int64_t eights = eights_of(all, steps);
  at[0] = ix_divi(ctx, o[1], PANEL), at[1] = ix_index(ctx, 0);
  for (int i = 0; i < rank; i++) weight[i + 2] = tap[i], at[1] = ix_add(ctx, ix_mul(ctx, at[1], v.taps[i]), tap[i]);
  ix four = ix_divi(ctx, c, FOUR);
  at[2] = ix_select(ctx, ix_lt(ctx, four, ix_index(ctx, 2 * eights)), ix_divi(ctx, c, EIGHT), ix_addi(ctx, four, -eights));
  ix group = ix_cast(ctx, TN_INDEX, lw_in(b, n, 2, at));
  at[2] = four, at[3] = ix_add(ctx, ix_muli(ctx, ix_remi(ctx, o[1], LANES), FOUR), ix_remi(ctx, c, FOUR));
  ix pick = ix_remi(ctx, ix_cast(ctx, TN_INDEX, lw_in(b, n, 3, at)), GROUP);
  int64_t channels, groups = ix_const_value(x->dims[1], &channels) ? channels / GROUP : 0; /* no step reads elsewhere, whatever the table says */
  bool power = groups > 0 && (groups & (groups - 1)) == 0;
  group = power ? ix_remi(ctx, group, groups) : ix_min(ctx, group, ix_addi(ctx, ix_divi(ctx, x->dims[1], GROUP), -1));
  in[1] = ix_add(ctx, ix_muli(ctx, group, GROUP), pick);
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
