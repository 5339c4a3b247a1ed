/* ops_recurrent.c — RNN, GRU, LSTM.
 *
 * What does not depend on the state is hoisted: P = X W' + bias for all steps is one MatMul.
 * The rest is one kernel (tenon:RNNSteps, GRUSteps, LSTMSteps):
 *
 *   for d, b { h = h0, c = c0; for each step { gates = P[step] + h R'; h, c = cell(gates); Y[step] = h } }
 *
 * with up to four sequences b side by side, which share what is read of R', the most of a step's time.
 *
 * D directions, S steps, B sequences, I inputs, H neurons, n gates (1, 3, 4) in ONNX's order:
 * z r h for GRU, i o f c for LSTM. */
#include "lower/compose.h"
#include "lower/elementwise.h"
#include <string.h>

enum { RNN = 1, GRU = 3, LSTM = 4 }; /* the number of gates tells them apart */

static int gates_of(const ir_node *n) { return n->op->name[0] == 'R' ? RNN : n->op->name[0] == 'G' ? GRU : LSTM; }

/* ---- activations ---- */

typedef struct activation {
  const char *name;
  bool has_alpha, has_beta;
  double alpha, beta; /* here the defaults */
} activation;

static const activation known[] = {
    {"Tanh", 0, 0, 0, 0}, {"Sigmoid", 0, 0, 0, 0}, {"Relu", 0, 0, 0, 0}, {"Affine", 1, 1, 1, 0}, {"LeakyRelu", 1, 0, 0.01, 0},
    {"ThresholdedRelu", 1, 0, 1, 0}, {"ScaledTanh", 1, 1, 1, 1}, {"HardSigmoid", 1, 1, 0.2, 0.5}, {"Elu", 1, 0, 1, 0},
    {"Softsign", 0, 0, 0, 0}, {"Softplus", 0, 0, 0, 0}};

/* f, g, h of each direction; `given` of 6. Returns how many there are per direction. */
static int activations_of(tn_ctx *ctx, const ir_node *n, activation *given) {
  static const char *const usual[] = {"Sigmoid", "Tanh", "Tanh"};
  int gates = gates_of(n), each = gates == RNN ? 1 : gates == GRU ? 2 : 3;
  bool two = strcmp(ir_attr_get_string(n, "direction", "forward"), "bidirectional") == 0;
  const ir_attr *a = ir_attr_find(n, "activations"), *alpha = ir_attr_find(n, "activation_alpha"), *beta = ir_attr_find(n, "activation_beta");
  int count = each * (two ? 2 : 1), nalpha = 0, nbeta = 0;
  if (a && a->n && (a->kind != IR_ATTR_STRINGS || (a->n != count && !(gates == RNN && a->n == 2)))) lw_bad(ctx, n, "%d activations, not %d", a->n, count);
  for (int i = 0; i < count; i++) { /* parameters go to the functions that take them, in order */
    const char *name = a && a->n ? a->strings[i] : gates == RNN ? "Tanh" : usual[i % each];
    int k = 0;
    while (k < IR_COUNT(known) && strcasecmp(known[k].name, name) != 0) k++;
    if (k == IR_COUNT(known)) lw_unsupported(ctx, n, "activation '%s'", name);
    given[i] = known[k];
    if (known[k].has_alpha && alpha && alpha->kind == IR_ATTR_FLOATS && nalpha < alpha->n) given[i].alpha = alpha->floats[nalpha++];
    if (known[k].has_beta && beta && beta->kind == IR_ATTR_FLOATS && nbeta < beta->n) given[i].beta = beta->floats[nbeta++];
  }
  return each;
}

static bool same_activations(const activation *a, const activation *b, int count) {
  for (int i = 0; i < count; i++)
    if (strcmp(a[i].name, b[i].name) || a[i].alpha != b[i].alpha || a[i].beta != b[i].beta) return false;
  return true;
}

static ix activate(tn_ctx *ctx, const activation *a, ix x) {
  tn_dtype t = (tn_dtype)x->dtype;
  ix alpha = ix_float(ctx, t, (float)a->alpha), beta = ix_float(ctx, t, (float)a->beta), zero = ix_float(ctx, t, 0), one = ix_float(ctx, t, 1);
  switch (a->name[0]) {
  case 'T':
    if (a->name[1] == 'a') return ix_unary(ctx, IX_TANH, x);
    return ix_select(ctx, ix_le(ctx, alpha, x), x, zero);
  case 'R': return ix_max(ctx, zero, x);
  case 'A': return ix_add(ctx, ix_mul(ctx, alpha, x), beta);
  case 'L': return ix_select(ctx, ix_le(ctx, zero, x), x, ix_mul(ctx, alpha, x));
  case 'H': return ix_max(ctx, zero, ix_min(ctx, one, ix_add(ctx, ix_mul(ctx, alpha, x), beta)));
  case 'E': return ix_select(ctx, ix_le(ctx, zero, x), x, ix_mul(ctx, alpha, ix_unary(ctx, IX_EXPM1, x)));
  default: break;
  }
  if (strcmp(a->name, "Sigmoid") == 0) return ix_unary(ctx, IX_SIGMOID, x);
  if (strcmp(a->name, "ScaledTanh") == 0) return ix_mul(ctx, alpha, ix_unary(ctx, IX_TANH, ix_mul(ctx, beta, x)));
  if (strcmp(a->name, "Softsign") == 0) return ix_div(ctx, x, ix_add(ctx, one, ix_unary(ctx, IX_ABS, x)));
  return lw_f_softplus(ctx, NULL, &x);
}

/* ---- RNN, GRU, LSTM: X, W, R, B, lengths, h0, c0, peepholes -> Y, last h, last c ---- */

static void need_extent(tn_ctx *ctx, const ir_node *n, int k, int axis, ix want) {
  ix have = n->in[k]->dims[axis];
  if (have != want && ix_is_const(have) && ix_is_const(want))
    lw_bad(ctx, n, "axis %d of '%s' has extent %s, not %s", axis, n->in[k]->name, ix_print(ctx, have), ix_print(ctx, want));
}

static void check_direction(tn_ctx *ctx, const ir_node *n, ix directions) {
  const char *how = ir_attr_get_string(n, "direction", "forward");
  bool two = strcmp(how, "bidirectional") == 0;
  if (!two && strcmp(how, "forward") != 0 && strcmp(how, "reverse") != 0) lw_bad(ctx, n, "direction '%s'", how);
  if (!ix_is_int(directions, two ? 2 : 1)) lw_bad(ctx, n, "direction %s with weights for %s", how, ix_print(ctx, directions));
  if (lw_has_attr(n, "clip") && !(ir_attr_get_float(n, "clip", 0) > 0)) lw_bad(ctx, n, "clip %g", ir_attr_get_float(n, "clip", 0));
}

/* Y [S, D, B, H] (layout 1: [B, S, D, H]), states [D, B, H] ([B, D, H]). */
static void set_outputs(ir_node *n, tn_dtype t, ix steps, ix directions, ix batch, ix neurons) {
  bool batch_first = ir_attr_get_int(n, "layout", 0) == 1;
  if (batch_first) lw_set(n, 0, t, 4, (ix[]){batch, steps, directions, neurons});
  else lw_set(n, 0, t, 4, (ix[]){steps, directions, batch, neurons});
  for (int k = 1; k < 3; k++) lw_set(n, k, t, 3, batch_first ? (ix[]){batch, directions, neurons} : (ix[]){directions, batch, neurons});
}

static void recurrent_infer(tn_ctx *ctx, ir_node *n) {
  activation all[6];
  int gates = gates_of(n), most = gates == LSTM ? 8 : 6;
  const ir_value *x = n->in[0], *w = n->in[1], *r = n->in[2];
  int64_t layout = ir_attr_get_int(n, "layout", 0);
  if (!ir_is_float(x->dtype)) lw_bad(ctx, n, "an input of type %s", ir_dtype_name(x->dtype));
  if (layout != 0 && layout != 1) lw_bad(ctx, n, "layout %lld", (long long)layout);
  static const int rank[] = {3, 3, 3, 2, 1, 3, 3, 2};
  for (int k = 0; k < most; k++) {
    if (!lw_has(n, k)) continue;
    lw_need_rank(ctx, n, k, rank[k]);
    if (k == 4) lw_need_integer(ctx, n, k);
    else lw_need_same_type(ctx, n, 0, k);
  }
  ix d = r->dims[0], h = r->dims[2], b = x->dims[layout ? 0 : 1], all_gates = ix_muli(ctx, h, gates);
  check_direction(ctx, n, d);
  int64_t hidden = ir_attr_get_int(n, "hidden_size", 0);
  if (hidden && ix_is_const(h) && !ix_is_int(h, hidden)) lw_bad(ctx, n, "hidden_size %lld with weights for %s", (long long)hidden, ix_print(ctx, h));
  need_extent(ctx, n, 1, 0, d);
  need_extent(ctx, n, 1, 1, all_gates);
  need_extent(ctx, n, 1, 2, x->dims[2]);
  need_extent(ctx, n, 2, 1, all_gates);
  (void)w;
  if (lw_has(n, 3)) need_extent(ctx, n, 3, 0, d), need_extent(ctx, n, 3, 1, ix_muli(ctx, all_gates, 2));
  if (lw_has(n, 4)) need_extent(ctx, n, 4, 0, b);
  for (int k = 5; k < 7 && k < most; k++)
    if (lw_has(n, k)) need_extent(ctx, n, k, layout ? 1 : 0, d), need_extent(ctx, n, k, layout ? 0 : 1, b), need_extent(ctx, n, k, 2, h);
  if (gates == LSTM && lw_has(n, 7)) need_extent(ctx, n, 7, 0, d), need_extent(ctx, n, 7, 1, ix_muli(ctx, h, 3));
  activations_of(ctx, n, all);
  set_outputs(n, x->dtype, x->dims[layout ? 1 : 0], d, b, h);
}

static void recurrent_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  int gates = gates_of(n);
  ir_value *x = n->in[0], *in[7] = {NULL};
  int64_t D = ir_dim(ctx, n->in[2], 0), H = ir_dim(ctx, n->in[2], 2), rows[2] = {ir_dim(ctx, x, 0), ir_dim(ctx, x, 1)}, I = ir_dim(ctx, x, 2);
  bool reset_last = gates == GRU && ir_attr_get_int(n, "linear_before_reset", 0);
  static const int64_t turned[] = {0, 2, 1};
  ir_value *flat = lw_reshape(g, n, x, 3, (int64_t[]){1, rows[0] * rows[1], I});
  ir_value *p = lw_op2(g, n, "MatMul", flat, lw_transpose(g, n, n->in[1], turned));
  if (lw_has(n, 3)) { /* both biases at once, but for the part of GRU that the reset gate scales */
    int64_t all = gates * H, shared = reset_last ? 2 * H : all;
    ir_value *b = lw_op2(g, n, "Add", lw_slice(g, n, n->in[3], 1, 0, shared), lw_slice(g, n, n->in[3], 1, all, all + shared));
    if (reset_last) {
      b = lw_concat(g, n, 1, 2, (ir_value *[]){b, lw_slice(g, n, n->in[3], 1, shared, all)});
      in[2] = lw_slice(g, n, n->in[3], 1, all + shared, 2 * all);
    }
    p = lw_op2(g, n, "Add", p, lw_reshape(g, n, b, 3, (int64_t[]){D, 1, all}));
  }
  in[0] = lw_reshape(g, n, p, 4, (int64_t[]){D, rows[0], rows[1], gates * H});
  in[1] = lw_transpose(g, n, n->in[2], turned);
  for (int k = 4; k < n->nin && k < 8; k++) in[k - 1] = n->in[k];
  ir_node *m = lw_node_n(g, n, gates == RNN ? "tenon:RNNSteps" : gates == GRU ? "tenon:GRUSteps" : "tenon:LSTMSteps", 7, in, gates == LSTM ? 3 : 2);
  m->nattrs = n->nattrs;
  m->attrs = n->attrs;
  ir_infer(ctx, m);
  for (int k = n->nout; k-- > 0;)
    if (n->out[k]) lw_replace(g, n, k, m->out[k]);
}

/* ---- the steps: P [D, S, B, nH] (layout 1: [D, B, S, nH]), R' [D, H, nH], reset bias [D, H],
 *      lengths, h0, c0, peepholes ---- */

static void steps_infer(tn_ctx *ctx, ir_node *n) {
  const ir_value *p = n->in[0];
  int batch = ir_attr_get_int(n, "layout", 0) == 1 ? 1 : 2;
  lw_need_rank(ctx, n, 0, 4);
  lw_need_rank(ctx, n, 1, 3);
  check_direction(ctx, n, p->dims[0]);
  set_outputs(n, p->dtype, p->dims[3 - batch], p->dims[0], p->dims[batch], n->in[1]->dims[1]);
}

enum { MOST_ROWS = 4 };

typedef struct cell { /* a block of sequences in one direction */
  lw_build *b;
  ir_node *n;
  tn_ctx *ctx;
  ir_builder *ib;
  tn_dtype t, out;       /* the states are kept in t */
  int gates;
  int64_t neurons, rows; /* sequences of the block */
  ix d, first, step, reverse; /* direction, the block's first sequence, the turn; whether time runs backwards */
  ix row, seq;           /* the sequence at hand, in the block and among all */
  ir_buf *sum, *h, *c, *reset; /* [rows, nH], [rows, H], [rows, H], [rows, H] */
  const activation *f;   /* f, g, h */
} cell;

/* What follows, up to end_each, is done for each sequence of the block. */
static void each_sequence(cell *s) {
  s->row = s->rows > 1 ? ib_loop(s->ib, "r", ix_index(s->ctx, s->rows)) : ix_index(s->ctx, 0);
  s->seq = ix_add(s->ctx, s->first, s->row);
}
static void end_each(const cell *s) {
  if (s->rows > 1) ib_end(s->ib);
}
static ix get(const cell *s, ir_buf *buf, ix j) { return ib_load(s->ib, buf, (ix[]){s->row, j}); }
static void put(const cell *s, ir_buf *buf, ix j, ix v) { ib_store(s->ib, buf, (ix[]){s->row, j}, v); }

/* sum[.., from..to) += from_state R'[.., from..to): eight rows of R' at a time, for many sequences fewer: all
 * loads and stores of a vector are to be as many as its products, which with four and four they are. */
static void add_product(cell *s, ir_buf *state, int64_t from, int64_t to) {
  tn_ctx *ctx = s->ctx;
  enum { MOST = 8, FACTORS = 16 };
  int together = FACTORS / (int)s->rows < MOST ? FACTORS / (int)s->rows : MOST;
  for (int part = 0; part < 2; part++) {
    int64_t full = s->neurons / together * together, taken = part ? 1 : together;
    if (part ? full == s->neurons : full == 0) continue;
    ix k = part ? ib_for(s->ib, "k", ix_index(ctx, full), ix_index(ctx, s->neurons)) : ix_muli(ctx, ib_loop(s->ib, "k", ix_index(ctx, full / together)), together);
    ix x[MOST_ROWS][MOST];
    for (int r = 0; r < s->rows; r++)
      for (int u = 0; u < taken; u++) x[r][u] = ib_let(s->ib, "x", ib_load(s->ib, state, (ix[]){ix_index(ctx, r), ix_addi(ctx, k, u)}));
    ix j = ib_for(s->ib, "j", ix_index(ctx, from), ix_index(ctx, to));
    for (int r = 0; r < s->rows; r++) {
      ix at[2] = {ix_index(ctx, r), j}, acc = ib_load(s->ib, s->sum, at);
      for (int u = 0; u < taken; u++) {
        ix w = lw_in(s->b, s->n, 1, (ix[]){s->d, ix_addi(ctx, k, u), j});
        acc = ix_fma(ctx, x[r][u], ix_cast(ctx, s->t, w), acc);
      }
      ib_store(s->ib, s->sum, at, acc);
    }
    ib_end_n(s->ib, 2);
  }
}

static ix clipped(const cell *s, ix x) {
  if (!lw_has_attr(s->n, "clip")) return x;
  double c = (float)ir_attr_get_float(s->n, "clip", 0);
  return ix_max(s->ctx, ix_float(s->ctx, s->t, -c), ix_min(s->ctx, ix_float(s->ctx, s->t, c), x));
}

/* Sum of gate `k` for neuron j. */
static ix gate(const cell *s, int k, ix j) {
  return get(s, s->sum, ix_addi(s->ctx, j, k * s->neurons));
}
static ix peephole(const cell *s, int k, ix j, ix c) { /* P[iof] (.) c, or null */
  if (!lw_has(s->n, 6)) return NULL;
  ix p = lw_in(s->b, s->n, 6, (ix[]){s->d, ix_addi(s->ctx, j, k * s->neurons)});
  return ix_mul(s->ctx, ix_cast(s->ctx, s->t, p), c);
}
static ix plus(const cell *s, ix a, ix b) { return b ? ix_add(s->ctx, a, b) : a; }
static ix function(const cell *s, int which, ix x) { return activate(s->ctx, &s->f[which], clipped(s, x)); }


/* The step that the sequence at hand is at. With lengths, what follows up to end_step is done only where there is one. */
static ix begin_step(cell *s, bool guarded) {
  tn_ctx *ctx = s->ctx;
  bool batch_first = ir_attr_get_int(s->n, "layout", 0) == 1, lengths = lw_has(s->n, 3);
  ix steps = s->n->in[0]->dims[batch_first ? 2 : 1], length = steps, zero = ix_index(ctx, 0);
  if (lengths) length = ib_let(s->ib, "length", lw_clamp(ctx, ix_cast(ctx, TN_INDEX, lw_in(s->b, s->n, 3, &s->seq)), zero, steps));
  ix at = ix_select(ctx, s->reverse, ix_addi(ctx, ix_sub(ctx, length, s->step), -1), s->step);
  if (lengths) at = ix_select(ctx, ix_lt(ctx, s->step, length), at, s->step);
  if (lengths || !ix_is_const(s->reverse)) at = ib_let(s->ib, "at", lw_clamp(ctx, at, zero, ix_addi(ctx, steps, -1)));
  if (lengths && guarded) ib_if(s->ib, ix_lt(ctx, s->step, length));
  return at;
}
static void end_step(const cell *s) {
  if (lw_has(s->n, 3)) ib_end(s->ib);
}

static void lstm_cell(cell *s) {
  tn_ctx *ctx = s->ctx;
  ix one = ix_float(ctx, s->t, 1);
  add_product(s, s->h, 0, LSTM * s->neurons);
  each_sequence(s);
  begin_step(s, true);
  ix j = ib_loop(s->ib, "j", ix_index(ctx, s->neurons));
  ix before = ib_let(s->ib, "before", get(s, s->c, j));
  ix i = ib_let(s->ib, "in", function(s, 0, plus(s, gate(s, 0, j), peephole(s, 0, j, before)))), f;
  if (ir_attr_get_int(s->n, "input_forget", 0)) f = ix_sub(ctx, one, i);
  else f = function(s, 0, plus(s, gate(s, 2, j), peephole(s, 2, j, before)));
  ix c = ib_let(s->ib, "now", ix_add(ctx, ix_mul(ctx, f, before), ix_mul(ctx, i, function(s, 1, gate(s, 3, j)))));
  ix o = function(s, 0, plus(s, gate(s, 1, j), peephole(s, 1, j, c)));
  put(s, s->h, j, ix_mul(ctx, o, activate(ctx, &s->f[2], c)));
  put(s, s->c, j, c);
  ib_end(s->ib);
  end_step(s);
  end_each(s);
}

static void gru_cell(cell *s) {
  tn_ctx *ctx = s->ctx;
  int64_t H = s->neurons;
  bool reset_last = ir_attr_get_int(s->n, "linear_before_reset", 0) != 0;
  ix one = ix_float(ctx, s->t, 1), j;
  ir_buf *hidden = reset_last ? s->c : NULL; /* X W' of the hidden gate, kept apart from h R' */
  if (reset_last) {
    each_sequence(s);
    j = ib_loop(s->ib, "j", ix_index(ctx, H));
    ix at = ix_addi(ctx, j, 2 * H);
    put(s, hidden, j, get(s, s->sum, at));
    put(s, s->sum, at, lw_has(s->n, 2) ? ix_cast(ctx, s->t, lw_in(s->b, s->n, 2, (ix[]){s->d, j})) : ix_float(ctx, s->t, 0));
    ib_end(s->ib);
    end_each(s);
    add_product(s, s->h, 0, 3 * H);
  } else {
    add_product(s, s->h, 0, 2 * H);
    each_sequence(s);
    j = ib_loop(s->ib, "j", ix_index(ctx, H));
    put(s, s->reset, j, ix_mul(ctx, function(s, 0, gate(s, 1, j)), get(s, s->h, j)));
    ib_end(s->ib);
    end_each(s);
    add_product(s, s->reset, 2 * H, 3 * H);
  }
  each_sequence(s);
  begin_step(s, true);
  j = ib_loop(s->ib, "j", ix_index(ctx, H));
  ix z = ib_let(s->ib, "z", function(s, 0, gate(s, 0, j))), sum = gate(s, 2, j);
  if (reset_last) sum = ix_add(ctx, get(s, hidden, j), ix_mul(ctx, function(s, 0, gate(s, 1, j)), sum));
  ix now = function(s, 1, sum);
  put(s, s->h, j, ix_add(ctx, ix_mul(ctx, ix_sub(ctx, one, z), now), ix_mul(ctx, z, get(s, s->h, j))));
  ib_end(s->ib);
  end_step(s);
  end_each(s);
}

static void rnn_cell(cell *s) {
  add_product(s, s->h, 0, s->neurons);
  each_sequence(s);
  begin_step(s, true);
  ix j = ib_loop(s->ib, "j", ix_index(s->ctx, s->neurons));
  put(s, s->h, j, function(s, 0, gate(s, 0, j)));
  ib_end(s->ib);
  end_step(s);
  end_each(s);
}

/* Index of a state [D, B, H] or, batch first, [B, D, H]. */
static void state_index(const cell *s, ix j, ix *at) {
  bool batch_first = ir_attr_get_int(s->n, "layout", 0) == 1;
  at[0] = batch_first ? s->seq : s->d;
  at[1] = batch_first ? s->d : s->seq;
  at[2] = j;
}

static void start_state(cell *s, ir_buf *buf, int input) {
  each_sequence(s);
  ix at[3], j = ib_loop(s->ib, "j", ix_index(s->ctx, s->neurons)), v = ix_float(s->ctx, s->t, 0);
  state_index(s, j, at);
  if (input && lw_has(s->n, input)) v = ix_cast(s->ctx, s->t, lw_in(s->b, s->n, input, at));
  put(s, buf, j, v);
  ib_end(s->ib);
  end_each(s);
}

static void last_state(cell *s, ir_buf *buf, int out) {
  if (!lw_wants(s->b, s->n, out)) return;
  each_sequence(s);
  ix at[3], j = ib_loop(s->ib, "j", ix_index(s->ctx, s->neurons));
  state_index(s, j, at);
  lw_out(s->b, s->n, out, at, ix_cast(s->ctx, s->out, get(s, buf, j)));
  ib_end(s->ib);
  end_each(s);
}

/* The block of sequences from s->first on. */
static void run_block(cell *s) {
  tn_ctx *ctx = s->ctx;
  ir_builder *ib = s->ib;
  bool batch_first = ir_attr_get_int(s->n, "layout", 0) == 1, lengths = lw_has(s->n, 3);
  ix rows = ix_index(ctx, s->rows), one_gate[2] = {rows, ix_index(ctx, s->neurons)}, all[2] = {rows, ix_index(ctx, s->gates * s->neurons)};
  s->h = ib_alloc(ib, "h", s->t, 2, one_gate, IR_LOCAL);
  if (s->gates != RNN) s->c = ib_alloc(ib, "c", s->t, 2, one_gate, IR_LOCAL);
  if (s->gates == GRU) s->reset = ib_alloc(ib, "reset", s->t, 2, one_gate, IR_LOCAL);
  s->sum = ib_alloc(ib, "sum", s->t, 2, all, IR_LOCAL);
  start_state(s, s->h, 4);
  if (s->gates == LSTM) start_state(s, s->c, 5);
  s->step = ib_loop(ib, "t", s->n->in[0]->dims[batch_first ? 2 : 1]);
  each_sequence(s);
  ix at = begin_step(s, false), j = ib_loop(ib, "j", all[1]); /* behind the end of a sequence its states stay, whatever is summed */
  put(s, s->sum, j, ix_cast(ctx, s->t, lw_in(s->b, s->n, 0, (ix[]){s->d, batch_first ? s->seq : at, batch_first ? at : s->seq, j})));
  ib_end(ib);
  end_each(s);
  if (s->gates == LSTM) lstm_cell(s);
  else if (s->gates == GRU) gru_cell(s);
  else rnn_cell(s);
  if (lw_wants(s->b, s->n, 0)) {
    each_sequence(s);
    at = begin_step(s, true);
    for (int hidden = 1; hidden >= !lengths; hidden--) { /* then h, else zeros */
      if (!hidden) ib_else(ib);
      j = ib_loop(ib, "j", one_gate[1]);
      ix v = hidden ? ix_cast(ctx, s->out, get(s, s->h, j)) : lw_zero(ctx, s->out);
      lw_out(s->b, s->n, 0, batch_first ? (ix[]){s->seq, at, s->d, j} : (ix[]){at, s->d, s->seq, j}, v);
      ib_end(ib);
    }
    end_step(s);
    end_each(s);
  }
  ib_end(ib);
  last_state(s, s->h, 1);
  if (s->gates == LSTM) last_state(s, s->c, 2);
}

/* All sequences in direction d, in whole blocks and one of what is left; `reverse`: whether time runs backwards in it. */
static void run_direction(cell *s, ix d, ix reverse) {
  tn_ctx *ctx = s->ctx;
  ix batch = s->n->in[0]->dims[ir_attr_get_int(s->n, "layout", 0) == 1 ? 1 : 2];
  int64_t count = 0;
  bool known = ix_const_value(batch, &count);
  s->d = d;
  s->reverse = reverse;
  s->rows = known && count > 1 ? (count < MOST_ROWS ? count : MOST_ROWS) : 1;
  s->first = ix_muli(ctx, ib_loop(s->ib, "b", known ? ix_index(ctx, count / s->rows) : batch), s->rows);
  run_block(s);
  ib_end(s->ib);
  int64_t rest = count % s->rows;
  if (!rest) return;
  s->rows = rest;
  s->first = ix_index(ctx, count - rest);
  run_block(s);
}

static void steps_build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  activation all[6];
  const char *how = ir_attr_get_string(n, "direction", "forward");
  bool two = strcmp(how, "bidirectional") == 0;
  cell s = {.b = b, .n = n, .ctx = ctx, .ib = lw_b(b), .t = lw_compute_type(n->in[0]->dtype), .out = n->in[0]->dtype, .gates = gates_of(n)};
  int each = activations_of(ctx, n, all);
  s.neurons = ir_dim(ctx, n->in[1], 1);
  s.f = all;
  bool one_loop = !two || same_activations(all, all + each, each); /* then directions may run side by side */
  for (int k = 0; k < (one_loop ? 1 : 2); k++, s.f += each) {
    ix d = ib_for(s.ib, "d", ix_index(ctx, k), ix_index(ctx, one_loop && two ? 2 : k + 1));
    run_direction(&s, d, two ? ix_eq(ctx, d, ix_index(ctx, 1)) : ix_bool(ctx, strcmp(how, "reverse") == 0));
    ib_end(s.ib);
  }
}

/* ---- the steps as nodes, unrolled: what gradients pass through ---- */

typedef struct unrolled {
  ir_graph *g;
  ir_node *n;
  int gates;
  int64_t neurons;
  const activation *f;
  ir_value *r, *reset, *peep; /* of one direction: R' [H, nH], [H], [3H] */
} unrolled;

static ir_value *op2(const unrolled *u, const char *op, ir_value *a, ir_value *b) { return lw_op2(u->g, u->n, op, a, b); }

static ir_value *activated(const unrolled *u, int which, ir_value *x) {
  const activation *a = &u->f[which];
  ir_graph *g = u->g;
  if (strcmp(a->name, "Affine") == 0) return op2(u, "Add", op2(u, "Mul", x, lw_number(g, x, (float)a->alpha)), lw_number(g, x, (float)a->beta));
  if (strcmp(a->name, "ScaledTanh") == 0)
    return op2(u, "Mul", lw_op1(g, u->n, "Tanh", op2(u, "Mul", x, lw_number(g, x, (float)a->beta))), lw_number(g, x, (float)a->alpha));
  ir_node *m = lw_node_n(g, u->n, a->name, 1, &x, 1);
  if (a->has_alpha) ir_attr_float(m, "alpha", a->alpha);
  if (a->has_beta) ir_attr_float(m, "beta", a->beta);
  ir_infer(g->ctx, m);
  return m->out[0];
}

/* The activation of a sum, which `clip` bounds. */
static ir_value *function_of(const unrolled *u, int which, ir_value *x) {
  if (lw_has_attr(u->n, "clip")) {
    double c = ir_attr_get_float(u->n, "clip", 0);
    x = lw_op3(u->g, u->n, "Clip", x, lw_number(u->g, x, -c), lw_number(u->g, x, c));
  }
  return activated(u, which, x);
}

static ir_value *columns(const unrolled *u, ir_value *v, int from, int to) {
  return lw_slice(u->g, u->n, v, v->rank - 1, from * u->neurons, to * u->neurons);
}
static ir_value *peeped(const unrolled *u, ir_value *sum, int k, ir_value *c) {
  return u->peep ? op2(u, "Add", sum, op2(u, "Mul", columns(u, u->peep, k, k + 1), c)) : sum;
}

/* One step of all sequences: p [B, nH] and the states [B, H], which it replaces. */
static void unrolled_step(const unrolled *u, ir_value *p, ir_value **h, ir_value **c) {
  bool reset_last = u->gates == GRU && ir_attr_get_int(u->n, "linear_before_reset", 0);
  if (u->gates == RNN) {
    *h = function_of(u, 0, op2(u, "Add", p, op2(u, "MatMul", *h, u->r)));
    return;
  }
  ir_value *one = lw_number(u->g, p, 1);
  if (u->gates == LSTM) {
    ir_value *sum = op2(u, "Add", p, op2(u, "MatMul", *h, u->r)), *before = *c;
    ir_value *i = function_of(u, 0, peeped(u, columns(u, sum, 0, 1), 0, before));
    ir_value *f = ir_attr_get_int(u->n, "input_forget", 0) ? op2(u, "Sub", one, i) : function_of(u, 0, peeped(u, columns(u, sum, 2, 3), 2, before));
    *c = op2(u, "Add", op2(u, "Mul", f, before), op2(u, "Mul", i, function_of(u, 1, columns(u, sum, 3, 4))));
    *h = op2(u, "Mul", function_of(u, 0, peeped(u, columns(u, sum, 1, 2), 1, *c)), activated(u, 2, *c));
    return;
  }
  ir_value *both = op2(u, "Add", columns(u, p, 0, 2), op2(u, "MatMul", *h, columns(u, u->r, 0, 2))), *own = columns(u, u->r, 2, 3), *sum;
  ir_value *z = function_of(u, 0, columns(u, both, 0, 1)), *reset = function_of(u, 0, columns(u, both, 1, 2));
  if (reset_last) {
    sum = op2(u, "MatMul", *h, own);
    if (u->reset) sum = op2(u, "Add", sum, u->reset);
    sum = op2(u, "Mul", reset, sum);
  } else sum = op2(u, "MatMul", op2(u, "Mul", reset, *h), own);
  ir_value *now = function_of(u, 1, op2(u, "Add", columns(u, p, 2, 3), sum));
  *h = op2(u, "Add", op2(u, "Mul", op2(u, "Sub", one, z), now), op2(u, "Mul", z, *h));
}

/* Direction d of v along axis `axis`, which goes. */
static ir_value *direction_of(const unrolled *u, ir_value *v, int axis, int64_t d) {
  if (!v) return NULL;
  int64_t dims[IR_MAX_RANK];
  int rank = 0;
  for (int i = 0; i < v->rank; i++)
    if (i != axis) dims[rank++] = ir_dim(u->g->ctx, v, i);
  return lw_reshape(u->g, u->n, lw_slice(u->g, u->n, v, axis, d, d + 1), rank, dims);
}

static ir_value *reversed(const unrolled *u, ir_value *v, ir_value *lengths) { /* v [S, B, ..] */
  ir_node *m = lw_node_n(u->g, u->n, "ReverseSequence", 2, (ir_value *[]){v, lengths}, 1);
  ir_attr_int(m, "time_axis", 0);
  ir_attr_int(m, "batch_axis", 1);
  ir_infer(u->g->ctx, m);
  return m->out[0];
}

static ir_value *zeros(const unrolled *u, const ir_value *like, int64_t rows) {
  return op2(u, "Expand", lw_number(u->g, like, 0), ir_graph_ints(u->g, NULL, 2, (int64_t[]){rows, u->neurons}));
}

/* All steps of one direction: y [S, B, H] and the last states [B, H]. */
static ir_value *unrolled_direction(const unrolled *u, ir_value *p, ir_value *lengths, bool backwards, ir_value **h, ir_value **c) {
  ir_graph *g = u->g;
  int64_t S = ir_dim(g->ctx, p, 0), B = ir_dim(g->ctx, p, 1), H = u->neurons, all = u->gates * H;
  ir_value **y = IR_NEW_ARRAY(g->ctx, ir_value *, S + 1), *none = zeros(u, p, B);
  if (!*h) *h = none;
  if (!*c) *c = none;
  if (backwards && lengths) p = reversed(u, p, lengths);
  for (int64_t t = 0; t < S; t++) {
    int64_t at = backwards && !lengths ? S - 1 - t : t;
    ir_value *h0 = *h, *c0 = *c;
    unrolled_step(u, lw_reshape(g, u->n, lw_slice(g, u->n, p, 0, at, at + 1), 2, (int64_t[]){B, all}), h, c);
    y[at] = *h;
    if (lengths) { /* behind the end the states stay and the results are 0 */
      ir_value *left = lw_reshape(g, u->n, lw_cast_node(g, u->n, lengths, TN_I64), 2, (int64_t[]){B, 1});
      ir_value *runs = op2(u, "Greater", left, ir_graph_scalar(g, NULL, TN_I64, (double)t));
      *h = lw_op3(g, u->n, "Where", runs, *h, h0);
      *c = lw_op3(g, u->n, "Where", runs, *c, c0);
      y[at] = lw_op3(g, u->n, "Where", runs, y[at], none);
    }
    y[at] = lw_reshape(g, u->n, y[at], 3, (int64_t[]){1, B, H});
  }
  ir_value *whole = lw_concat(g, u->n, 0, (int)S, y);
  return backwards && lengths ? reversed(u, whole, lengths) : whole;
}

static void steps_expand(ir_graph *g, ir_node *n) {
  tn_ctx *ctx = g->ctx;
  activation all[6];
  const char *how = ir_attr_get_string(n, "direction", "forward");
  bool two = strcmp(how, "bidirectional") == 0, batch_first = ir_attr_get_int(n, "layout", 0) == 1;
  int each = activations_of(ctx, n, all), D = two ? 2 : 1;
  ir_value *y[2], *h[2], *c[2], *in[7] = {NULL};
  for (int k = 0; k < n->nin; k++) in[k] = n->in[k];
  if (ir_dim(ctx, in[0], batch_first ? 2 : 1) == 0) lw_unsupported(ctx, n, "the gradient of no steps");
  if (batch_first) in[0] = lw_transpose(g, n, in[0], (int64_t[]){0, 2, 1, 3});
  for (int d = 0; d < D; d++) {
    unrolled u = {.g = g, .n = n, .gates = gates_of(n), .neurons = ir_dim(ctx, in[1], 1), .f = all + d * each};
    u.r = direction_of(&u, in[1], 0, d);
    u.reset = direction_of(&u, in[2], 0, d);
    u.peep = direction_of(&u, in[6], 0, d);
    h[d] = direction_of(&u, in[4], batch_first ? 1 : 0, d);
    c[d] = direction_of(&u, in[5], batch_first ? 1 : 0, d);
    y[d] = unrolled_direction(&u, direction_of(&u, in[0], 0, d), in[3], two ? d == 1 : strcmp(how, "reverse") == 0, &h[d], &c[d]);
    int64_t S = ir_dim(ctx, y[d], 0), B = ir_dim(ctx, y[d], 1), H = u.neurons;
    y[d] = lw_reshape(g, n, y[d], 4, (int64_t[]){S, 1, B, H});
    if (batch_first) y[d] = lw_transpose(g, n, y[d], (int64_t[]){2, 0, 1, 3});
    for (int k = 0; k < 2; k++) {
      ir_value **v = k ? &c[d] : &h[d];
      *v = lw_reshape(g, n, *v, 3, batch_first ? (int64_t[]){B, 1, H} : (int64_t[]){1, B, H});
    }
  }
  ir_value *results[3] = {lw_concat(g, n, batch_first ? 2 : 1, D, y), lw_concat(g, n, batch_first ? 1 : 0, D, h), lw_concat(g, n, batch_first ? 1 : 0, D, c)};
  for (int k = n->nout; k-- > 0;)
    if (n->out[k]) lw_replace(g, n, k, results[k]);
  n->dead = true;
}

#define ATTRS "activation_alpha:F activation_beta:F activations:S clip:f direction:s hidden_size:i layout:i"
#define RECURRENT(NAME, MOST, OUTS, MORE) \
  {.name = NAME, .kind = IR_OP_COMPOSITE, .since = 7, .min_in = 3, .max_in = MOST, .min_out = 0, .max_out = OUTS, .attrs = ATTRS MORE, .infer = recurrent_infer, .expand = recurrent_expand}
#define STEPS(NAME, OUTS, MORE) \
  {.name = NAME, .domain = "tenon", .kind = IR_OP_KERNEL, .since = 1, .min_in = 2, .max_in = 7, .min_out = 1, .max_out = OUTS, .attrs = ATTRS MORE, .infer = steps_infer, .build = steps_build, .expand = steps_expand}
const ir_op lw_ops_recurrent[] = {
    RECURRENT("RNN", 6, 2, ""),
    RECURRENT("GRU", 6, 2, " linear_before_reset:i"),
    RECURRENT("LSTM", 8, 3, " input_forget:i"),
    STEPS("RNNSteps", 2, ""),
    STEPS("GRUSteps", 2, " linear_before_reset:i"),
    STEPS("LSTMSteps", 3, " input_forget:i"),
    {0}};
