/* program.c — groups become kernel calls on slots; memory is planned.
 *
 * Storage: values that are aliases of each other share one storage (union-find with an
 * element offset). A storage is an input, an output, a range of the packed weights, or
 * a range of the arena. Groups whose operands are all constants run in the pack section
 * and leave their results in the weights. */
#include "lower/program_internal.h"
#include "lower/inplace.h"
#include "lower/join.h"
#include "lower/region.h"
#include "lower/schedule.h"
#include "ir/text.h"
#include <stdlib.h>
#include <string.h>

static lw_store *store_of(lw_maker *m, ir_value *v) {
  lw_store *s = m->of[v->id];
  if (!s) {
    s = m->of[v->id] = IR_NEW(m->ctx, lw_store);
    s->value = v;
    s->slot = s->kind = -1;
    s->first = s->last = -1;
  }
  return s;
}

/* The storage that holds v, and the byte offset of v inside it. */
static lw_store *base_of(lw_maker *m, ir_value *v, int64_t *offset) {
  lw_store *s = store_of(m, v);
  int64_t at = 0;
  while (s->base) {
    at += s->offset;
    s = s->base;
  }
  *offset = at;
  return s;
}

/* A value leaves its group when a node of another group (or the caller) uses it. */
static bool leaves_group(void *user, const ir_value *v) {
  (void)user;
  for (int i = 0; i < v->nuses; i++)
    if (!v->uses[i] || v->uses[i]->group != v->def->group) return true;
  return false;
}

/* ---- slots ---- */

static int slot_add(lw_maker *m, const char *name, int kind, int index, int64_t offset, const ir_value *v, int64_t bytes) {
  ir_slot s = {.name = ir_intern(m->ctx, name), .kind = (ir_slot_kind)kind, .index = index, .offset = offset};
  s.dtype = v->dtype;
  s.rank = v->rank;
  s.layout = v->layout;
  s.bytes = bytes;
  for (int i = 0; i < v->rank; i++) s.dims[i] = ir_dim(m->ctx, v, i);
  IR_PUSH(m->ctx, m->p->slots, m->p->nslots, s);
  return m->p->nslots - 1;
}

/* Slot of a raw constant, for the pack section. */
static int raw_slot(lw_maker *m, ir_value *v) {
  for (int i = 0; i < m->p->nslots; i++) {
    const ir_slot *s = &m->p->slots[i];
    if (s->kind == IR_SLOT_RAW && !s->offset && s->data == ir_value_source(v) && s->name == v->name) return i;
  }
  int s = slot_add(m, v->name, IR_SLOT_RAW, m->p->nraw++, 0, v, ir_value_bytes(m->ctx, v));
  m->p->slots[s].data = ir_value_source(v);
  return s;
}

/* Slot of v, which is raw constant `base` seen from `offset` bytes on: callers give the original alone. */
static int raw_view(lw_maker *m, ir_value *v, ir_value *base, int64_t offset) {
  int whole = raw_slot(m, base), index = m->p->slots[whole].index;
  for (int i = whole + 1; i < m->p->nslots; i++) {
    const ir_slot *s = &m->p->slots[i];
    if (s->kind == IR_SLOT_RAW && s->index == index && s->offset == offset && s->name == v->name) return i;
  }
  int s = slot_add(m, v->name, IR_SLOT_RAW, index, offset, v, ir_value_bytes(m->ctx, v));
  m->p->slots[s].data = m->p->slots[whole].data;
  return s;
}

typedef struct call { /* a kernel call before slots have addresses */
  int kernel;
  lw_region *region; /* instead: its node's operands and results, and the room for its arena behind them */
  const char *name;
  int nvalues;
  ir_value **values;
  bool pack; /* of the pack section */
} call;

typedef struct relayout { /* a value as a schedule asked for it, by the kernel that makes it so */
  ir_value *of, *is;
  int kernel;
} relayout;

static void schedule_kernel(lw_maker *m, ir_program_kernel *k);

static int known_kernel(const lw_maker *m, const char *text) {
  for (int i = 0; i < m->p->nkernels; i++)
    if (m->texts[i] == text) return i;
  return -1;
}

static int add_kernel(lw_maker *m, const char *text, ir_program_kernel pk) {
  int n = m->p->nkernels;
  IR_PUSH(m->ctx, m->texts, n, text);
  IR_PUSH(m->ctx, m->p->kernels, m->p->nkernels, pk);
  return m->p->nkernels - 1;
}

static int kernel_index(lw_maker *m, ir_kernel *k) {
  const char *text = ir_intern(m->ctx, ir_kernel_unnamed(m->ctx, k));
  int known = known_kernel(m, text);
  if (known >= 0) return known;
  ir_program_kernel pk = {.kernel = k, .schedule = "", .lowered = k};
  schedule_kernel(m, &pk);
  return add_kernel(m, text, pk);
}

static const ir_kernel *named(tn_ctx *ctx, const ir_kernel *k, const char *name) {
  ir_kernel *copy = IR_NEW(ctx, ir_kernel);
  *copy = *k;
  copy->name = name;
  return copy;
}

/* A kernel of a region, scheduled there. */
static int region_kernel(void *user, const ir_program_kernel *k) {
  lw_maker *m = user;
  const char *text = ir_intern(m->ctx, ir_kernel_unnamed(m->ctx, k->kernel));
  int known = known_kernel(m, text);
  if (known >= 0) return known;
  const char *name = ir_intern(m->ctx, ir_format(m->ctx, "%s_%d", k->kernel->name, m->p->nkernels));
  ir_program_kernel pk = {.kernel = named(m->ctx, k->kernel, name), .schedule = k->schedule};
  pk.lowered = k->lowered == k->kernel ? pk.kernel : named(m->ctx, k->lowered, name);
  return add_kernel(m, text, pk);
}

static const char *kernel_name(lw_maker *m, const ir_node *n, const ir_node *root) {
  char name[64];
  size_t k = 0;
  const char *s = root ? root->op->name : n->op->name;
  for (; *s && k < 40; s++) name[k++] = (char)((*s >= 'A' && *s <= 'Z') ? *s + 32 : *s);
  name[k] = 0;
  return ir_intern(m->ctx, ir_format(m->ctx, "%s_%d", name, m->p->nkernels));
}

static const char *call_name(lw_maker *m, int group) {
  ir_text t = {.ctx = m->ctx};
  const ir_node *head = m->root[group] ? m->root[group] : m->members[group][0];
  ir_put(&t, "%s", head->name);
  int others = 0;
  for (int i = 0; i < m->nmembers[group]; i++)
    if (m->members[group][i] != head && others++ < 6) ir_put(&t, "+%s", m->members[group][i]->op->name);
  if (others > 6) ir_put(&t, "+%d more", others - 6);
  return t.s;
}

/* Copies a tensor into another layout. */
static ir_kernel *copy_kernel(lw_maker *m, const ir_value *from, const ir_buf *to) {
  tn_ctx *ctx = m->ctx;
  ir_builder *ib = ir_builder_new(ctx);
  ir_kernel *k = IR_NEW(ctx, ir_kernel);
  k->nbufs = 2;
  k->bufs = IR_NEW_ARRAY(ctx, ir_buf *, 2);
  k->bufs[0] = ir_buf_new(ctx, "in0", from->dtype, from->rank, from->dims, from->layout, IR_GLOBAL);
  k->bufs[1] = ir_buf_new(ctx, "out1", to->dtype, to->rank, to->shape, to->layout, IR_GLOBAL);
  k->bufs[0]->access = IR_IN;
  k->bufs[1]->access = IR_OUT;
  ix idx[IR_MAX_RANK];
  for (int i = 0; i < from->rank; i++) idx[i] = ib_loop(ib, ir_format(ctx, "i%d", i), from->dims[i]);
  ib_store(ib, k->bufs[1], idx, ix_load(ctx, k->bufs[0], idx));
  ib_end_n(ib, from->rank);
  k->body = ib_finish(ib);
  return k;
}

/* A value of this graph that no node makes. */
static ir_value *new_value(lw_maker *m, ir_value *w) {
  w->id = m->nids++;
  IR_PUSH(m->ctx, m->g->values, m->g->nvalues, w);
  m->of = ir_grow(m->ctx, m->of, m->nids - 1, m->nids, sizeof *m->of);
  return w;
}

/* The value v as a scheduled kernel wants it: computed once in the pack section, or before that call where a run
 * makes v or may change it. */
static ir_value *packed_as(lw_maker *m, ir_value *v, const ir_buf *want) {
  tn_ctx *ctx = m->ctx;
  ir_kernel *k = want->made ? IR_NEW(ctx, ir_kernel) : copy_kernel(m, v, want);
  if (want->made) *k = *lw_made_kernel(ctx, want);
  k->name = ir_intern(ctx, ir_format(ctx, "pack_%d", m->p->nkernels));
  int kernel = kernel_index(m, k);
  for (int i = 0; i < m->nrelayouts; i++)
    if (m->relayouts[i].of == v && m->relayouts[i].kernel == kernel) return m->relayouts[i].is;
  ir_value *w = IR_NEW(ctx, ir_value);
  *w = *v;
  w->name = ir_intern(ctx, ir_format(ctx, "%s.packed", v->name));
  w->kind = IR_VALUE_NODE;
  w->dtype = want->dtype;
  w->layout = want->layout;
  w->rank = want->rank;
  for (int i = 0; i < want->rank; i++) w->dims[i] = want->shape[i];
  w->data = w->raw = NULL;
  w->def = NULL;
  w->nuses = 1;
  w->packed = v->packed;
  new_value(m, w);
  IR_PUSH(ctx, m->relayouts, m->nrelayouts, (relayout){v, w, kernel});
  call c = {.kernel = kernel, .name = w->name, .nvalues = 2, .pack = v->packed};
  c.values = IR_NEW_ARRAY(ctx, ir_value *, 2);
  c.values[0] = v;
  c.values[1] = w;
  IR_PUSH(ctx, m->calls, m->ncalls, c);
  return w;
}

/* The kernel's updates take the place of what they are computed from; else they are copied there. */
static void update_in_place(lw_maker *m, int group, lw_kernel *lk) {
  for (int i = 0; i < m->nupdates; i++) {
    lw_update *u = &m->updates[i];
    if (u->group != group) continue;
    int in = 0, out = 0;
    while (in < lk->nvalues && lk->values[in] != u->target) in++;
    while (out < lk->nvalues && lk->values[out] != u->value) out++;
    ir_kernel *k = lk->kernel;
    if (in < lk->nvalues && out < lk->nvalues) {
      k = lw_kernel_in_place(m->ctx, lk->kernel, in, out);
      if (k) memmove(&lk->values[in], &lk->values[in + 1], (size_t)(--lk->nvalues - in) * sizeof *lk->values);
    }
    if (!k) {
      u->group = -1;
      continue;
    }
    lk->kernel = k;
    ir_value *own = u->value;
    while (own->def->group == LW_GROUP_ALIAS) own = own->def->in[0];
    lw_store *s = store_of(m, own);
    s->base = store_of(m, u->target);
    s->renewed = true;
  }
}

static void make_region(lw_maker *m, int group) {
  ir_node *n = m->members[group][0];
  for (int i = 0; i < m->nupdates; i++)
    if (m->updates[i].group == group) m->updates[i].group = -1; /* what it leaves is copied */
  call c = {.kernel = -1, .name = n->name, .region = lw_region_compile(m->ctx, n, m->options)};
  ir_value *room = IR_NEW(m->ctx, ir_value);
  *room = (ir_value){.name = ir_intern(m->ctx, ir_format(m->ctx, "%s.arena", n->name)), .kind = IR_VALUE_NODE, .dtype = TN_U8, .rank = 1, .nuses = 1};
  room->dims[0] = ix_index(m->ctx, lw_region_bytes(c.region));
  c.values = IR_NEW_ARRAY(m->ctx, ir_value *, n->nin + n->nout + 1);
  for (int k = 0; k < n->nin; k++)
    if (n->in[k]) c.values[c.nvalues++] = n->in[k];
  for (int k = 0; k < n->nout; k++) c.values[c.nvalues++] = n->out[k];
  c.values[c.nvalues++] = new_value(m, room);
  IR_PUSH(m->ctx, m->calls, m->ncalls, c);
}

static void make_call(lw_maker *m, int group) {
  ir_node *root = m->root[group];
  if (lw_is_region(m->members[group][0])) {
    make_region(m, group);
    return;
  }
  bool pack = m->group_packed[group];
  lw_kernel lk = lw_build_group(m->ctx, kernel_name(m, m->members[group][0], root), root, group, m->nmembers[group],
                                m->members[group], pack, leaves_group, m);
  update_in_place(m, group, &lk);
  call c = {.name = call_name(m, group), .nvalues = lk.nvalues, .values = lk.values, .pack = pack};
  c.kernel = kernel_index(m, lk.kernel);
  const ir_program_kernel *pk = &m->p->kernels[c.kernel];
  for (int i = 0; i < c.nvalues; i++)
    if (pk->lowered->bufs[i]->layout != pk->kernel->bufs[i]->layout || pk->lowered->bufs[i]->made) c.values[i] = packed_as(m, c.values[i], pk->lowered->bufs[i]);
  IR_PUSH(m->ctx, m->calls, m->ncalls, c);
}

/* ---- storages ---- */

static void use(lw_maker *m, ir_value *v, int at, bool run) {
  int64_t offset;
  lw_store *s = base_of(m, v, &offset);
  s->needed = true;
  if (run) s->run_use = true;
  if (run != !s->value->packed) return; /* constants read by run live for ever */
  if (s->first < 0) s->first = at;
  s->last = at;
}

static void join_aliases(lw_maker *m) {
  for (int i = 0; i < m->g->nnodes; i++) {
    ir_node *n = m->g->nodes[i];
    if (n->group != LW_GROUP_ALIAS) continue;
    for (int k = 0; k < n->nout; k++) {
      if (!n->out[k] || !n->out[k]->nuses) continue;
      int64_t elements;
      if (!lw_is_alias(m->ctx, n, &elements)) {
        if (strcmp(n->op->name, "Concat") != 0) ir_bug(m->ctx, "%s is no alias any more", n->where);
        continue; /* its parts are in it, below */
      }
      lw_store *s = store_of(m, n->out[k]);
      s->base = store_of(m, n->in[0]);
      s->offset = elements * (int64_t)ir_dtype_bytes(n->out[k]->dtype);
    }
  }
  const lw_place *places = lw_join_parts(m->ctx, m->g, false);
  for (int i = 0; i < m->g->nvalues; i++) {
    const lw_place *p = &places[m->g->values[i]->id];
    if (!p->base) continue;
    lw_store *s = store_of(m, m->g->values[i]);
    s->base = store_of(m, p->base);
    s->offset = p->offset;
  }
}

static int slot_of(lw_maker *m, ir_value *v, bool run) {
  lw_store *s = store_of(m, v);
  int64_t offset;
  lw_store *base = base_of(m, v, &offset);
  if (!run && ir_value_source(base->value)) /* pack reads the original */
    return s == base ? raw_slot(m, v) : raw_view(m, v, base->value, offset);
  if (s->slot >= 0 && (run || m->p->slots[s->slot].kind != IR_SLOT_RAW)) return s->slot;
  if (base->kind < 0) ir_bug(m->ctx, "'%s' has no storage", v->name);
  s->slot = slot_add(m, v->name, base->kind, base->index, base->bytes /* holds the offset by now */ + offset, v, ir_value_bytes(m->ctx, v));
  m->p->slots[s->slot].inout = base->slot >= 0 && m->p->slots[base->slot].inout;
  return s->slot;
}

static void put_region(lw_maker *m, const call *c) {
  const ir_node *n = c->region->n;
  int *in = IR_NEW_ARRAY(m->ctx, int, n->nin + 1), *out = IR_NEW_ARRAY(m->ctx, int, n->nout + 1);
  for (int k = 0; k < n->nin; k++) in[k] = n->in[k] ? slot_of(m, n->in[k], true) : -1;
  for (int k = 0; k < n->nout; k++) out[k] = slot_of(m, n->out[k], true);
  int npack = m->p->npack;
  lw_region_put(m->ctx, m->p, c->region, in, out, slot_of(m, c->values[c->nvalues - 1], true), region_kernel, m);
  for (int i = npack; i < m->p->npack; i++) IR_PUSH(m->ctx, m->later, m->nlater, m->p->pack[i]);
  m->p->npack = npack;
}

enum { STORED, COPIED, COPIED_FIRST }; /* how an output comes to its place */

static ir_inst copy_inst(tn_ctx *ctx, int dst, int src, const char *name) {
  ir_inst i = {.kind = IR_COPY_SLOT, .nargs = 2, .name = name};
  i.args = IR_NEW_ARRAY(ctx, int, 2);
  i.args[0] = dst;
  i.args[1] = src;
  return i;
}

static void copy_output(lw_maker *m, int to, ir_value *v) {
  ir_inst c = copy_inst(m->ctx, to, slot_of(m, v, true), v->name);
  IR_PUSH(m->ctx, m->p->run, m->p->nrun, c);
}

/* Whether v is what a state or input held before it was updated. */
static bool is_old(lw_maker *m, ir_value *v) {
  lw_store *s = store_of(m, v);
  for (; s->base; s = s->base)
    if (s->renewed) return false;
  for (int i = 0; i < m->nupdates; i++)
    if (store_of(m, m->updates[i].target) == s) return true;
  return false;
}

/* Places of states, and what they start with. */
static void place_states(lw_maker *m) {
  tn_ctx *ctx = m->ctx;
  ir_graph *g = m->g;
  ir_program *p = m->p;
  for (int i = 0; i < g->nparams; i++) {
    ir_value *v = g->params[i];
    if (v->kind != IR_VALUE_STATE) continue;
    lw_store *s = store_of(m, v);
    int64_t bytes = ir_value_bytes(ctx, v), room = (bytes + 63) & ~(int64_t)63;
    s->kind = IR_SLOT_STATE;
    s->bytes = p->state_bytes;
    s->slot = slot_add(m, v->name, IR_SLOT_STATE, 0, p->state_bytes, v, bytes);
    p->slots[s->slot].data = v->start;
    if (!ir_add_size(p->state_bytes, room, &p->state_bytes)) ir_fail(ctx, TN_EINPUT, "the states' size overflows");
    if (!m->options->starts || !v->start) continue;
    int raw = slot_add(m, v->name, IR_SLOT_RAW, p->nraw++, 0, v, bytes);
    p->slots[raw].data = v->start;
    int first = slot_add(m, v->name, IR_SLOT_WEIGHTS, 0, p->weights_bytes, v, bytes);
    if (!ir_add_size(p->weights_bytes, room, &p->weights_bytes)) ir_fail(ctx, TN_EINPUT, "the weights' size overflows");
    ir_inst pack = copy_inst(ctx, first, raw, v->name), init = copy_inst(ctx, s->slot, first, v->name);
    IR_PUSH(ctx, p->pack, p->npack, pack);
    IR_PUSH(ctx, p->init, p->ninit, init);
  }
  for (int i = 0; i < m->nupdates; i++) {
    lw_store *s = store_of(m, m->updates[i].target);
    if (s->kind == IR_SLOT_INPUT) p->slots[s->slot].inout = true;
  }
}

/* Slot `number` becomes the place of v, which tells an extent of an output. */
static void set_extent(lw_maker *m, int number, const int *output, ir_value *v, int axis) {
  int64_t place = 0;
  lw_store *s = base_of(m, v, &place);
  ir_slot *e = &m->p->slots[number], *of = &m->p->slots[*output];
  e->kind = (ir_slot_kind)s->kind;
  e->index = s->index;
  e->offset = s->bytes + place;
  ix *sizes = IR_NEW_ARRAY(m->ctx, ix, of->rank);
  for (int a = 0; a < of->rank; a++) sizes[a] = of->sizes ? of->sizes[a] : ix_index(m->ctx, of->dims[a]);
  sizes[axis] = ir_extent_new(m->ctx, e->name, of->dims[axis]);
  of->sizes = sizes;
}

ir_program *lw_make_program(tn_ctx *ctx, ir_graph *g, const lw_options *options) {
  lw_maker mk = {.ctx = ctx, .g = g, .options = options}, *m = &mk;
  ir_program *p = m->p = IR_NEW(ctx, ir_program);
  p->name = g->name;
  ir_graph_analyse(g);
  for (int i = 0; i < g->nvalues; i++)
    if (g->values[i]->id >= m->nids) m->nids = g->values[i]->id + 1;
  m->of = IR_NEW_ARRAY(ctx, lw_store *, m->nids + 1);
  lw_collect_groups(m);
  join_aliases(m);

  lw_plan_updates(m);

  lw_order_groups(m);

  /* kernels */
  for (int i = 0; i < m->norder; i++) make_call(m, m->order[i]);
  const call *calls = m->calls;

  /* storages: inputs and outputs first */
  p->ninputs = g->ninputs;
  p->noutputs = ir_graph_results(g) - g->nextents;
  int extents = p->nslots; /* what outputs hang on comes before them */
  for (int i = 0; i < g->nextents; i++) {
    ir_value *v = g->outputs[p->noutputs + i];
    slot_add(m, ir_format(ctx, "%s.extent%d", g->outputs[g->extents[i].output]->name, i), IR_SLOT_ARENA, 0, 0, v, ir_value_bytes(ctx, v));
  }
  for (int i = 0; i < g->ninputs; i++) {
    lw_store *s = store_of(m, g->inputs[i]);
    s->kind = IR_SLOT_INPUT;
    s->index = i;
    s->bytes = 0;
    s->slot = slot_add(m, g->inputs[i]->name, IR_SLOT_INPUT, i, 0, g->inputs[i], ir_value_bytes(ctx, g->inputs[i]));
  }
  place_states(m);
  int *how = IR_NEW_ARRAY(ctx, int, g->noutputs + 1);
  int *out_slot = IR_NEW_ARRAY(ctx, int, g->noutputs + 1);
  for (int i = 0; i < p->noutputs; i++) {
    ir_value *v = g->outputs[i];
    int64_t offset;
    lw_store *s = base_of(m, v, &offset);
    out_slot[i] = slot_add(m, v->name, IR_SLOT_OUTPUT, i, 0, v, ir_value_bytes(ctx, v));
    /* the producer writes straight into the caller's memory when it can */
    bool direct = s->kind < 0 && !s->value->packed && s->value->kind == IR_VALUE_NODE && offset == 0 &&
                  ir_value_bytes(ctx, s->value) == ir_value_bytes(ctx, v) && !v->layout;
    how[i] = direct ? STORED : is_old(m, v) ? COPIED_FIRST : COPIED;
    if (!direct) continue;
    s->kind = IR_SLOT_OUTPUT;
    s->index = i;
    s->bytes = 0;
  }
  for (int i = 0; i < m->nupdates; i++) {
    out_slot[ir_graph_results(g) + i] = store_of(m, m->updates[i].target)->slot;
    how[ir_graph_results(g) + i] = m->updates[i].group < 0 ? COPIED : STORED;
  }

  /* lives: numbers within the two sections */
  int npack = 0, nrun = 0;
  for (int i = 0; i < g->noutputs; i++)
    if (how[i] == COPIED_FIRST) use(m, g->outputs[i], nrun++, true);
  for (int i = 0; i < m->ncalls; i++) {
    int at = calls[i].pack ? npack++ : nrun++;
    for (int k = 0; k < calls[i].nvalues; k++) use(m, calls[i].values[k], at, !calls[i].pack);
  }
  for (int i = 0; i < g->noutputs; i++)
    if (how[i] == COPIED) use(m, g->outputs[i], nrun++, true);
  for (int i = 0; i < g->nextents; i++) use(m, g->outputs[p->noutputs + i], nrun, true);

  /* weights, pack arena, arena */
  lw_lifetime *run_life = IR_NEW_ARRAY(ctx, lw_lifetime, g->nvalues + 1), *pack_life = IR_NEW_ARRAY(ctx, lw_lifetime, g->nvalues + 1);
  lw_store **run_store = IR_NEW_ARRAY(ctx, lw_store *, g->nvalues + 1), **pack_store = IR_NEW_ARRAY(ctx, lw_store *, g->nvalues + 1);
  int nrun_life = 0, npack_life = 0, ncopies = 0;
  lw_store **copies = IR_NEW_ARRAY(ctx, lw_store *, g->nvalues + 1); /* constants that run reads as they are */
  for (int i = 0; i < g->nvalues; i++) {
    lw_store *s = m->of[g->values[i]->id];
    if (!s || s->base || !s->needed || s->kind >= 0) continue;
    int64_t bytes = ir_value_bytes(ctx, s->value);
    if (s->value->packed) {
      if (s->run_use) {
        s->kind = IR_SLOT_WEIGHTS;
        s->bytes = p->weights_bytes;
        if (!ir_add_size(p->weights_bytes, (bytes + 63) & ~(int64_t)63, &p->weights_bytes)) ir_fail(ctx, TN_EINPUT, "the weights' size overflows");
        if (ir_value_source(s->value)) copies[ncopies++] = s;
      } else if (!ir_value_source(s->value)) {
        s->kind = IR_SLOT_ARENA;
        pack_life[npack_life] = (lw_lifetime){s->first, s->last, bytes, 0};
        pack_store[npack_life++] = s;
      }
    } else {
      s->kind = IR_SLOT_ARENA;
      run_life[nrun_life] = (lw_lifetime){s->first, s->last, bytes, 0};
      run_store[nrun_life++] = s;
    }
  }
  p->arena_bytes = lw_plan_memory(ctx, nrun_life, run_life, &p->live_peak_bytes);
  p->pack_arena_bytes = lw_plan_memory(ctx, npack_life, pack_life, NULL);
  for (int i = 0; i < nrun_life; i++) run_store[i]->bytes = run_life[i].offset;
  for (int i = 0; i < npack_life; i++) pack_store[i]->bytes = pack_life[i].offset;

  /* instructions */
  for (int i = 0; i < ncopies; i++) {
    int dst = slot_of(m, copies[i]->value, true), src = raw_slot(m, copies[i]->value);
    ir_inst c = copy_inst(ctx, dst, src, copies[i]->value->name);
    IR_PUSH(ctx, p->pack, p->npack, c);
  }
  for (int i = 0; i < g->noutputs; i++)
    if (how[i] == COPIED_FIRST) copy_output(m, out_slot[i], g->outputs[i]);
  for (int i = 0; i < m->ncalls; i++) {
    bool run = !calls[i].pack;
    if (calls[i].region) {
      put_region(m, &calls[i]);
      continue;
    }
    ir_inst c = {.kind = IR_CALL, .kernel = calls[i].kernel, .nargs = calls[i].nvalues, .name = calls[i].name};
    c.args = IR_NEW_ARRAY(ctx, int, c.nargs);
    for (int k = 0; k < c.nargs; k++) c.args[k] = slot_of(m, calls[i].values[k], run);
    if (run) IR_PUSH(ctx, p->run, p->nrun, c);
    else IR_PUSH(ctx, p->pack, p->npack, c);
  }
  for (int i = 0; i < g->noutputs; i++)
    if (how[i] == COPIED) copy_output(m, out_slot[i], g->outputs[i]);
  for (int i = 0; i < m->nlater; i++) IR_PUSH(ctx, p->pack, p->npack, m->later[i]);
  for (int i = 0; i < g->nextents; i++) set_extent(m, extents + i, &out_slot[g->extents[i].output], g->outputs[p->noutputs + i], g->extents[i].axis);
  return p;
}

static void schedule_kernel(lw_maker *m, ir_program_kernel *k) {
  const lw_options *o = m->options;
  if (o->unscheduled || !o->target) return;
  const char *text = o->schedule ? o->schedule(o->user, m->ctx, k->kernel) : NULL, *reason = NULL;
  const ir_kernel *lowered = NULL;
  if (text && lw_schedule_error(m->ctx, k->kernel, text) > lw_accuracy_of_kernel(o->accuracy)) reason = "it is less accurate than asked for";
  else if (text) lowered = lw_schedule_apply(m->ctx, k->kernel, text, &reason);
  if (!lowered) { /* a stored schedule that no longer fits is a miss, not a failure */
    if (text) ir_log(m->ctx, "kernel %s: a given schedule was refused (%s); the default is taken", k->kernel->name, reason);
    text = lw_default_schedule(m->ctx, k->kernel, o->target, o->accuracy);
    lowered = lw_schedule_apply(m->ctx, k->kernel, text, &reason);
  }
  if (!lowered) ir_bug(m->ctx, "the default schedule of %s was refused: %s\n%s", k->kernel->name, reason, ir_kernel_print(m->ctx, k->kernel));
  if (!*text) return;
  k->schedule = text;
  k->lowered = lowered;
}

void lw_apply_schedules(tn_ctx *ctx, ir_program *p) {
  for (int i = 0; i < p->nkernels; i++) {
    ir_program_kernel *k = &p->kernels[i];
    const char *reason;
    k->lowered = k->kernel;
    if (!k->schedule || !*k->schedule) continue;
    k->lowered = lw_schedule_apply(ctx, k->kernel, k->schedule, &reason);
    if (!k->lowered) ir_fail(ctx, TN_EINPUT, "kernel %s: %s", k->kernel->name, reason);
  }
  ir_inst *sections[2] = {p->pack, p->run};
  int counts[2] = {p->npack, p->nrun};
  for (int s = 0; s < 2; s++)
    for (int i = 0; i < counts[s]; i++) {
      const ir_inst *c = &sections[s][i];
      if (c->kind != IR_CALL) continue;
      const ir_kernel *k = p->kernels[c->kernel].lowered;
      for (int b = 0; b < c->nargs; b++) {
        const ir_buf *want = k->bufs[b];
        const ir_slot *have = &p->slots[c->args[b]];
        if (want->layout != have->layout)
          ir_fail(ctx, TN_EINPUT, "kernel %s: its schedule lays '%s' out as \"%s\", the program packs it as \"%s\"", k->name, want->name,
                  want->layout ? want->layout->text : "", have->layout ? have->layout->text : "");
        bool fits = want->rank == have->rank;
        for (int i = 0; i < want->rank && fits; i++) fits = !ix_is_const(want->shape[i]) || ix_is_int(want->shape[i], have->dims[i]);
        if (!fits) ir_fail(ctx, TN_EINPUT, "kernel %s: its schedule wants '%s' of another shape than the program packs", k->name, want->name);
      }
    }
}
