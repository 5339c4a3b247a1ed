/* parts.c — whether a program treats the parts of a batch apart; see sizes.h.
 *
 * A tensor that is cut lies as `parts` equal pieces of memory, one after another. Of each kernel a loop is looked for
 * whose iterations fall into as many parts, v = q * b + s with 0 <= s < q, such that all that part b loads of tensors
 * that are cut, and all that it stores, lies in piece b; and b is used for nothing else. */
#include "lower/sizes.h"
#include <string.h>

typedef struct piece { /* memory that was written, or an input */
  ir_slot_kind kind;
  int index;
  int64_t offset, bytes;
  bool cut;
} piece;

typedef struct proof {
  tn_ctx *ctx;
  const ir_program *p;
  int64_t parts;
  int n;
  piece *pieces;
  const char *why;
  /* of the kernel that is looked at */
  const ir_kernel *k;
  const bool *cut;   /* by parameter */
  const ir_var *loop; /* v */
  ix part, by;       /* b; what v is of it */
  ir_var *b;
} proof;

static bool refuse(proof *f, const char *fmt, const char *name) {
  if (!f->why) f->why = ir_format(f->ctx, fmt, name);
  return false;
}

/* ---- memory ---- */

static bool meets(const piece *m, const ir_slot *s) {
  if (m->kind != s->kind || m->index != s->index) return false;
  return m->offset < s->offset + s->bytes && s->offset < m->offset + m->bytes;
}

static void written(proof *f, const ir_slot *s, bool cut) {
  int n = 0;
  for (int i = 0; i < f->n; i++)
    if (!meets(&f->pieces[i], s)) f->pieces[n++] = f->pieces[i];
  f->n = n;
  IR_PUSH(f->ctx, f->pieces, f->n, ((piece){s->kind, s->index, s->offset, s->bytes, cut}));
}

/* Whether what the slot holds is cut. Its memory must be seen as it was written. */
static bool is_cut(proof *f, const ir_slot *s, bool *cut) {
  *cut = false;
  for (int i = 0; i < f->n; i++) {
    const piece *m = &f->pieces[i];
    if (!meets(m, s) || !m->cut) continue;
    *cut = true;
    if (m->offset != s->offset || m->bytes != s->bytes) return refuse(f, "'%s' is a part of a tensor, or several together", s->name);
  }
  return true;
}

/* ---- a kernel ---- */

static int parameter(const proof *f, const ir_buf *b) {
  for (int i = 0; i < f->k->nbufs; i++)
    if (f->k->bufs[i] == b) return i;
  return -1;
}

/* e = q * b + rest with 0 <= rest < q. */
static bool in_own(proof *f, ix e, int64_t q) {
  int64_t c;
  if (!ix_affine_in(e, f->b, &c) || c != q) return false;
  ix rest = ix_subst1(f->ctx, e, f->b, ix_index(f->ctx, 0));
  return rest->lo >= 0 && rest->hi < q;
}

static bool scan(proof *f, ix e);

/* The element lies in piece b, by its index on the axis that is cut (the others are in bounds) or by its address. */
static bool own_element(proof *f, ir_buf *buf, const ix *index) {
  int64_t extent, all, c;
  int axis = 0;
  while (axis < buf->rank && ix_is_int(buf->shape[axis], 1)) axis++;
  ix offset = ir_buf_offset(f->ctx, buf, index);
  if (!ix_const_value(ir_buf_elements(f->ctx, buf), &all) || all % f->parts || !ix_affine_in(offset, f->b, &c) || c * f->parts != all) return false;
  bool by_axis = axis < buf->rank && ix_const_value(buf->shape[axis], &extent) && extent % f->parts == 0 && in_own(f, index[axis], extent / f->parts);
  for (int i = 0; i < buf->rank && by_axis; i++)
    if (i != axis) by_axis = scan(f, index[i]);
  return by_axis || in_own(f, offset, all / f->parts);
}

/* Uses b only to find elements of piece b. */
static bool scan(proof *f, ix e) {
  if (!ix_uses_var(e, f->b)) return true;
  int at = e->op == IX_LOAD ? parameter(f, e->u.buf) : -1;
  if (at >= 0 && f->cut[at]) return own_element(f, e->u.buf, e->args);
  for (int i = 0; i < e->nargs; i++)
    if (!scan(f, e->args[i])) return false;
  return e->op != IX_VAR;
}

typedef struct loads {
  proof *f;
  bool found;
} loads;
static void find_cut(void *user, ix e) {
  loads *l = user;
  int at = e->op == IX_LOAD ? parameter(l->f, e->u.buf) : -1;
  l->found |= at >= 0 && l->f->cut[at];
}
static bool loads_cut(proof *f, ix e) {
  loads l = {f, false};
  if (e) ix_walk(f->ctx, e, find_cut, &l);
  return l.found;
}

/* A load of a tensor that is cut without b in its index reads some one piece. */
static void check_load(void *user, ix e) {
  loads *l = user;
  int at = e->op == IX_LOAD ? parameter(l->f, e->u.buf) : -1;
  if (at >= 0 && l->f->cut[at] && !own_element(l->f, e->u.buf, e->args)) l->found = true;
}

static bool loads_apart(proof *f, ix e) {
  loads l = {f, false};
  ix_walk(f->ctx, e, check_load, &l);
  return !l.found;
}

static bool value_apart(proof *f, ix e) {
  if (!e) return true;
  e = ix_subst1(f->ctx, e, f->loop, f->by);
  return loads_apart(f, e) && scan(f, e);
}

/* The statement, inside v's loop. */
static bool apart(proof *f, const ir_stmt *s) {
  if (!s) return true;
  if (s->kind == IR_LET && ix_uses_var(s->value, f->loop) && s->value->dtype == TN_INDEX) /* said by its value where it is used */
    return apart(f, ir_subst_var(f->ctx, s->body, s->var, s->value));
  if (!value_apart(f, s->value) || !value_apart(f, s->lo) || !value_apart(f, s->hi)) return false;
  if (s->kind == IR_STORE) {
    ix index[IR_MAX_RANK];
    for (int i = 0; i < s->buf->rank; i++) {
      index[i] = ix_subst1(f->ctx, s->index[i], f->loop, f->by);
      if (!loads_apart(f, index[i]) || (s->buf->space != IR_GLOBAL && !scan(f, index[i]))) return false;
    }
    return s->buf->space != IR_GLOBAL || own_element(f, s->buf, index);
  }
  for (int i = 0; i < s->n; i++)
    if (!apart(f, s->items[i])) return false;
  return apart(f, s->body) && apart(f, s->other);
}

/* Loops from the outside to one that is cut; nothing beside it. */
static bool find_loop(proof *f, const ir_stmt *s) {
  int64_t lo, hi;
  for (; s && s->kind == IR_FOR; s = s->body) {
    if (!ix_const_value(s->lo, &lo) || !ix_const_value(s->hi, &hi)) return false;
    if (lo == 0 && hi > 0 && hi % f->parts == 0) {
      int64_t q = hi / f->parts;
      ir_var *inner = ir_var_new(f->ctx, "s", TN_INDEX, 0, q - 1);
      f->b = ir_var_new(f->ctx, "b", TN_INDEX, 0, f->parts - 1);
      f->loop = s->var;
      f->by = ix_add(f->ctx, ix_muli(f->ctx, f->b->expr, q), inner->expr);
      if (apart(f, s->body)) return true;
    }
  }
  return false;
}

static bool loads_any(proof *f, const ir_stmt *s) {
  if (!s) return false;
  if (loads_cut(f, s->value) || loads_cut(f, s->lo) || loads_cut(f, s->hi)) return true;
  for (int i = 0; s->kind == IR_STORE && i < s->buf->rank; i++)
    if (loads_cut(f, s->index[i])) return true;
  for (int i = 0; i < s->n; i++)
    if (loads_any(f, s->items[i])) return true;
  return loads_any(f, s->body) || loads_any(f, s->other);
}

/* Several loops one after another, each with its own part of the work: each on its own. */
static bool all_apart(proof *f, const ir_stmt *s) {
  if (s && s->kind == IR_SEQ) {
    for (int i = 0; i < s->n; i++)
      if (!all_apart(f, s->items[i])) return false;
    return true;
  }
  return find_loop(f, s);
}

static bool call_apart(proof *f, const ir_inst *c) {
  f->k = f->p->kernels[c->kernel].kernel;
  bool *cut = IR_NEW_ARRAY(f->ctx, bool, c->nargs + 1);
  for (int i = 0; i < c->nargs; i++) {
    const ir_slot *s = &f->p->slots[c->args[i]];
    if ((f->k->bufs[i]->access & IR_IN) && s->kind != IR_SLOT_WEIGHTS && !is_cut(f, s, &cut[i])) return false;
  }
  f->cut = cut;
  bool any = loads_any(f, f->k->body);
  for (int i = 0; any && i < c->nargs; i++) cut[i] |= (f->k->bufs[i]->access & IR_OUT) != 0;
  if (any && !all_apart(f, f->k->body)) return refuse(f, "kernel '%s' computes across it", c->name ? c->name : f->k->name);
  for (int i = 0; i < c->nargs; i++)
    if (f->k->bufs[i]->access & IR_OUT) written(f, &f->p->slots[c->args[i]], any);
  return true;
}

const char *lw_parts_refusal(tn_ctx *ctx, const ir_program *p, int64_t parts, const bool *in, bool *out) {
  proof f = {.ctx = ctx, .p = p, .parts = parts};
  if (p->state_bytes) return "it keeps a state from run to run";
  for (int i = 0; i < p->nslots; i++) {
    const ir_slot *s = &p->slots[i];
    if (s->kind != IR_SLOT_INPUT || s->offset) continue;
    if (s->inout) return "it changes inputs in place";
    bool seen = false;
    for (int k = 0; k < f.n; k++) seen |= f.pieces[k].index == s->index;
    if (!seen) written(&f, s, in[s->index]);
  }
  for (int i = 0; i < p->nrun; i++) {
    const ir_inst *c = &p->run[i];
    bool cut;
    if (c->kind == IR_CALL) {
      if (!call_apart(&f, c)) return f.why;
    } else if (c->kind == IR_COPY_SLOT) {
      if (!is_cut(&f, &p->slots[c->args[1]], &cut)) return f.why;
      written(&f, &p->slots[c->args[0]], cut);
    } else return "its control flow depends on values";
  }
  memset(out, 0, (size_t)p->noutputs * sizeof *out);
  for (int i = 0; i < f.n; i++)
    if (f.pieces[i].kind == IR_SLOT_OUTPUT) out[f.pieces[i].index] |= f.pieces[i].cut;
  return NULL;
}
