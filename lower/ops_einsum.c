/* ops_einsum.c — Einsum.
 *
 * One label per axis that the equation names (letters, and the axes of "..." counted from
 * the right). Loops over the labels of the output, then over the others:
 *   for .. { acc = 0; for k .. acc = fma(a[..] * b[..], z[..], acc); out = acc }
 * Loops are named as in MatMul where they play its parts: b0 b1 .. in all operands, m in
 * the first, n in the last, k for what is summed. */
#include "lower/grad.h"
#include "lower/window.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { DOTS = 52, LABELS = DOTS + IR_MAX_RANK, MAX_OPERANDS = 16 };

typedef struct einsum {
  int nin;
  int rank[MAX_OPERANDS], axis[MAX_OPERANDS][IR_MAX_RANK]; /* label of each operand axis */
  int out_rank, out[IR_MAX_RANK];
  int nsum, sum[LABELS];  /* labels that are summed over, in order of appearance */
  ix extent[LABELS];      /* null: the label does not appear */
} einsum;

static int label_of(char c) { return islower((unsigned char)c) ? c - 'a' + 26 : c - 'A'; } /* in the order of ASCII */

/* Reads one term ("ij", "...k") of `dots` hidden axes; returns the count, -1 when `max` is too few. */
static int read_term(tn_ctx *ctx, const ir_node *n, const char *s, const char *end, int dots, int *labels, int max) {
  int count = 0;
  bool seen = false;
  for (; s < end; s++) {
    if (*s == ' ') continue;
    if (*s == '.') {
      if (end - s < 3 || s[1] != '.' || s[2] != '.' || seen) lw_bad(ctx, n, "a stray '.' in the equation");
      seen = true;
      s += 2;
      for (int i = 0; i < dots; i++) {
        if (count == max) return -1;
        labels[count++] = LABELS - dots + i;
      }
      continue;
    }
    if (!isascii((unsigned char)*s) || !isalpha((unsigned char)*s)) lw_bad(ctx, n, "'%c' in the equation", *s);
    if (count == max) return -1;
    labels[count++] = label_of(*s);
  }
  return count;
}

static bool has_dots(const char *s, const char *end) {
  for (; s < end; s++)
    if (*s == '.') return true;
  return false;
}

static einsum einsum_of(tn_ctx *ctx, const ir_node *n) {
  einsum e = {.nin = n->nin};
  const char *s = ir_attr_get_string(n, "equation", NULL);
  if (!s) lw_bad(ctx, n, "'equation' is missing");
  if (n->nin > MAX_OPERANDS) lw_unsupported(ctx, n, "%d operands; at most %d", n->nin, MAX_OPERANDS);
  const char *arrow = strstr(s, "->"), *end = arrow ? arrow : s + strlen(s);
  int dots_wide = 0, uses[LABELS] = {0};
  for (int k = 0; k < n->nin; k++) {
    if (!lw_has(n, k)) lw_bad(ctx, n, "operand %d is omitted", k);
    const char *stop = memchr(s, ',', (size_t)(end - s));
    if (!stop) stop = end;
    if ((stop == end) != (k == n->nin - 1)) lw_bad(ctx, n, "the equation does not name %d operands", n->nin);
    const ir_value *v = n->in[k];
    int named = 0;
    for (const char *c = s; c < stop; c++) named += isalpha((unsigned char)*c) != 0;
    int dots = has_dots(s, stop) ? v->rank - named : 0;
    if (dots < 0 || read_term(ctx, n, s, stop, dots, e.axis[k], v->rank) != v->rank)
      lw_bad(ctx, n, "the equation gives operand %d another rank than its %d", k, v->rank);
    if (dots > dots_wide) dots_wide = dots;
    e.rank[k] = v->rank;
    for (int i = 0; i < v->rank; i++) {
      int l = e.axis[k][i];
      uses[l]++;
      if (!e.extent[l] || ix_is_int(e.extent[l], 1)) e.extent[l] = v->dims[i];
      else if (e.extent[l] != v->dims[i] && !ix_is_int(v->dims[i], 1) && ix_is_const(v->dims[i]) && ix_is_const(e.extent[l]))
        lw_bad(ctx, n, "axis %d of operand %d has extent %s, another operand %s", i, k, ix_print(ctx, v->dims[i]), ix_print(ctx, e.extent[l]));
    }
    s = stop + (stop < end);
  }
  int room = IR_MAX_RANK - 3;
  if (arrow) {
    e.out_rank = read_term(ctx, n, arrow + 2, arrow + strlen(arrow), dots_wide, e.out, room);
    for (int i = 0; i < e.out_rank; i++) {
      if (!e.extent[e.out[i]]) lw_bad(ctx, n, "the output names an axis that no operand has");
      for (int j = 0; j < i; j++)
        if (e.out[j] == e.out[i]) lw_bad(ctx, n, "the output names an axis twice");
    }
  } else { /* the hidden axes, then the labels that appear once, by the alphabet */
    for (int l = LABELS - dots_wide; l < LABELS && e.out_rank < room; l++) e.out[e.out_rank++] = l;
    for (int l = 0; l < DOTS && e.out_rank >= 0; l++)
      if (uses[l] == 1) {
        if (e.out_rank == room) e.out_rank = -1;
        else e.out[e.out_rank++] = l;
      }
  }
  if (e.out_rank < 0) lw_unsupported(ctx, n, "an output of more than %d axes", room);
  bool listed[LABELS] = {false};
  for (int i = 0; i < e.out_rank; i++) listed[e.out[i]] = true;
  for (int k = 0; k < e.nin; k++)
    for (int i = 0; i < e.rank[k]; i++)
      if (!listed[e.axis[k][i]]) {
        listed[e.axis[k][i]] = true;
        e.sum[e.nsum++] = e.axis[k][i];
      }
  return e;
}

static void infer(tn_ctx *ctx, ir_node *n) {
  einsum e = einsum_of(ctx, n);
  for (int k = 1; k < n->nin; k++) lw_need_same_type(ctx, n, 0, k);
  if (n->in[0]->dtype == TN_BOOL) lw_bad(ctx, n, "operands of type bool");
  ix dims[IR_MAX_RANK];
  for (int i = 0; i < e.out_rank; i++) dims[i] = e.extent[e.out[i]];
  lw_set(n, 0, n->in[0]->dtype, e.out_rank, dims);
}

static bool names(const einsum *e, int operand, int label) {
  for (int i = 0; i < e->rank[operand]; i++)
    if (e->axis[operand][i] == label) return true;
  return false;
}

static void build(lw_build *b, ir_node *n) {
  tn_ctx *ctx = lw_ctx(b);
  ir_builder *ib = lw_b(b);
  einsum e = einsum_of(ctx, n);
  ix at[LABELS], o[IR_MAX_RANK], zero = ix_index(ctx, 0);
  int batch = 0;
  for (int i = 0; i < e.out_rank; i++) {
    int l = e.out[i];
    bool first = names(&e, 0, l), last = names(&e, e.nin - 1, l);
    char name[16] = "m";
    if (first && last && e.nin > 1) snprintf(name, sizeof name, "b%d", batch++);
    else if (last && e.nin > 1) strcpy(name, "n");
    o[i] = at[l] = ib_loop(ib, name, e.extent[l]);
  }
  ir_buf *acc = lw_accumulator(b, n->out[0]->dtype);
  for (int i = 0; i < e.nsum; i++) at[e.sum[i]] = ib_loop(ib, "k", e.extent[e.sum[i]]);
  ix product = NULL;
  for (int k = 0; k < e.nin; k++) {
    ix index[IR_MAX_RANK];
    for (int i = 0; i < e.rank[k]; i++) index[i] = ix_is_int(n->in[k]->dims[i], 1) ? zero : at[e.axis[k][i]];
    ix x = ix_cast(ctx, acc->dtype, lw_in(b, n, k, index));
    if (k < e.nin - 1) product = product ? ix_mul(ctx, product, x) : x;
    else if (product) lw_accumulate(b, acc, product, x);
    else ib_update(ib, acc, NULL, IR_ADD, x);
  }
  ib_end_n(ib, e.nsum);
  lw_out(b, n, 0, o, ix_cast(ctx, n->out[0]->dtype, ib_get(ib, acc)));
  ib_end_n(ib, e.out_rank);
}

/* ---- the gradient of an operand: the einsum of dy and the other operands with its labels ----
 *
 * A label that stands twice in the operand is renamed once and tied by the identity matrix; one that
 * nothing else names is broadcast. */

typedef struct equation {
  char text[IR_MAX_RANK * (MAX_OPERANDS + 4) + 8];
  int n;
  char letter[LABELS]; /* 0: none yet */
  int letters;
} equation;

static char new_letter(equation *q) {
  int i = q->letters++;
  return (char)(i < 26 ? 'a' + i : 'A' + i - 26);
}
static char letter_of(equation *q, int label) {
  if (!q->letter[label]) q->letter[label] = new_letter(q);
  return q->letter[label];
}
static void put(equation *q, char c) { q->text[q->n++] = c; }

static void grad_of(lw_grad *d, const einsum *e, int k) {
  ir_node *n = d->n;
  equation q = {0};
  ir_value *in[MAX_OPERANDS + IR_MAX_RANK];
  int nin = 0;
  bool known[LABELS] = {false}, seen[LABELS] = {false};
  in[nin++] = d->dy[0];
  for (int i = 0; i < e->out_rank; i++) put(&q, letter_of(&q, e->out[i])), known[e->out[i]] = true;
  for (int j = 0; j < e->nin; j++) {
    if (j == k) continue;
    put(&q, ',');
    in[nin++] = n->in[j];
    for (int i = 0; i < e->rank[j]; i++) put(&q, letter_of(&q, e->axis[j][i])), known[e->axis[j][i]] = true;
  }
  char own[IR_MAX_RANK];
  int64_t dims[IR_MAX_RANK];
  for (int i = 0; i < e->rank[k]; i++) {
    int l = e->axis[k][i];
    int64_t extent = ix_need_const(d->ctx, e->extent[l], "extent");
    own[i] = known[l] || seen[l] ? letter_of(&q, l) : 0;
    dims[i] = own[i] ? extent : 1;
    if (seen[l]) { /* eye[first, this] */
      ir_value *square = lw_grad_full(d, n->in[k], 2, (int64_t[]){extent, extent}, 0);
      if (ix_is_int(n->in[k]->dims[i], 1) || !known[l]) lw_unsupported(d->ctx, n, "the gradient of a diagonal that is broadcast or summed alone");
      put(&q, ',');
      put(&q, own[i]);
      own[i] = new_letter(&q);
      put(&q, own[i]);
      in[nin++] = lw_op1(d->g, n, "EyeLike", square);
    }
    seen[l] = true;
  }
  put(&q, '-');
  put(&q, '>');
  for (int i = 0; i < e->rank[k]; i++)
    if (own[i]) put(&q, own[i]);
  ir_node *m = lw_node_n(d->g, n, "Einsum", nin, in, 1);
  ir_attr_string(m, "equation", q.text);
  ir_infer(d->ctx, m);
  lw_grad_add(d, k, lw_reshape(d->g, n, m->out[0], e->rank[k], dims));
}

static void grad(lw_grad *d) {
  einsum e = einsum_of(d->ctx, d->n);
  for (int k = 0; k < e.nin; k++)
    if (d->wanted[k]) grad_of(d, &e, k);
}

const ir_op lw_ops_einsum[] = {
    {.name = "Einsum", .kind = IR_OP_CONTRACTION, .since = 12, .min_in = 1, .max_in = -1, .min_out = 1, .max_out = 1, .attrs = "equation:s", .infer = infer, .build = build, .grad_build = grad},
    {0}};
