/* region.c — see region.h. */
#include "lower/region.h"
#include "lower/extent.h"
#include "ir/ctx_internal.h"
#include "ir/text.h"
#include <string.h>

bool lw_is_repeat(const ir_node *n) { return lw_is_region(n) && strcmp(n->op->name, "Repeat") == 0; }
int lw_carried(const ir_node *n) { return (int)ir_attr_get_int(n, "carried", 0); }

/* ---- what a body reads from around it ---- */

typedef struct apart { /* a graph that becomes one of its own */
  tn_ctx *ctx;
  ir_node *n;
  ir_map inside;      /* values of the body and of graphs in it */
  int nouter;
  ir_value **outer;
  ir_value **by;      /* inputs and constants of the new graphs, by graph: see stand_ins */
  bool reads_turn;    /* the body's first input is used */
} apart;

static void note_inside(apart *a, const ir_graph *g) {
  for (int i = 0; i < g->ninputs; i++) ir_map_set(&a->inside, g->inputs[i], a);
  for (int i = 0; i < g->nparams; i++) ir_map_set(&a->inside, g->params[i], a);
  for (int i = 0; i < g->nnodes; i++) {
    const ir_node *n = g->nodes[i];
    for (int k = 0; k < n->nout; k++)
      if (n->out[k]) ir_map_set(&a->inside, n->out[k], a);
    for (int k = 0; k < n->nattrs; k++)
      if (n->attrs[k].kind == IR_ATTR_GRAPH) note_inside(a, n->attrs[k].graph);
  }
}

static void note_read(apart *a, const ir_graph *body, ir_value *v) {
  if (!v) return;
  if (body->ninputs && v == body->inputs[0]) a->reads_turn = true;
  if (ir_map_get(&a->inside, v)) return;
  for (int i = 0; i < a->nouter; i++)
    if (a->outer[i] == v) return;
  if (lw_is_sized(v)) lw_unsupported(a->ctx, a->n, "a graph inside reads '%s', which is of a length that only a run finds", v->name);
  if (v->dtype == TN_NONE || v->rank < 0 || !ir_static(v)) lw_unsupported(a->ctx, a->n, "the type of '%s', which a graph inside reads, is not known", v->name);
  IR_PUSH(a->ctx, a->outer, a->nouter, v);
}

static void note_reads(apart *a, const ir_graph *body, const ir_graph *g) {
  for (int i = 0; i < g->nnodes; i++) {
    const ir_node *n = g->nodes[i];
    if (n->dead) continue;
    for (int k = 0; k < n->nin; k++) note_read(a, body, n->in[k]);
    for (int k = 0; k < n->nattrs; k++)
      if (n->attrs[k].kind == IR_ATTR_GRAPH) note_reads(a, body, n->attrs[k].graph);
  }
  for (int i = 0; i < g->noutputs; i++) note_read(a, body, g->outputs[i]);
}

static ir_value *input_like(ir_graph *to, const ir_value *v) {
  if (v->rank < 0 || !ir_static(v)) ir_fail(to->ctx, TN_EUNSUPPORTED, "'%s', which a loop keeps, has no known type", v->name);
  return ir_graph_input(to, v->name, v->dtype, v->rank, v->dims);
}

/* What stands in `to` for the values around: constants for constants, inputs for the others, which follow what `ins` has. */
static ir_value **stand_ins(apart *a, ir_graph *to, int *nins, ir_value ***ins) {
  ir_value **by = IR_NEW_ARRAY(a->ctx, ir_value *, a->nouter + 1);
  for (int i = 0; i < a->nouter; i++) {
    ir_value *v = a->outer[i];
    if (v->data || v->kind == IR_VALUE_CONST || v->kind == IR_VALUE_PARAM) {
      by[i] = IR_NEW(a->ctx, ir_value);
      *by[i] = *v;
      by[i]->id = a->ctx->next_id++;
      by[i]->def = NULL;
      by[i]->uses = NULL;
      by[i]->nuses = 0;
      if (v->kind != IR_VALUE_PARAM) by[i]->kind = IR_VALUE_CONST;
      IR_PUSH(a->ctx, to->values, to->nvalues, by[i]);
      IR_PUSH(a->ctx, to->params, to->nparams, by[i]);
      continue;
    }
    by[i] = input_like(to, v);
    if (ins) IR_PUSH(a->ctx, *ins, *nins, v);
  }
  return by;
}

static void set_graph(ir_node *n, const char *name, ir_graph *g) {
  ir_attr a = {.name = ir_intern(g->ctx, name), .kind = IR_ATTR_GRAPH, .graph = g};
  IR_PUSH(g->ctx, n->attrs, n->nattrs, a);
}

/* ---- loops ---- */

bool lw_is_heavy(const ir_graph *body) {
  for (int i = 0; i < body->nnodes; i++) {
    ir_op_kind k = body->nodes[i]->op->kind;
    if (k == IR_OP_CONTRACTION || k == IR_OP_WINDOW || k == IR_OP_CONTROL || ir_node_is(body->nodes[i], "Gemm")) return true;
  }
  return false;
}

static bool holds(const ir_value *v) {
  double d;
  return v->data && ir_known_float(v, &d) && d != 0;
}

bool lw_goes_on(const ir_graph *body) {
  const ir_value *v = body->outputs[0];
  while (v->def && ir_node_is(v->def, "Identity")) v = v->def->in[0];
  if (v == body->inputs[1] || holds(v)) return true;
  const ir_attr *a = v->def && ir_node_is(v->def, "Constant") ? ir_attr_find(v->def, "value") : NULL;
  return a && a->tensor && holds(a->tensor);
}

static ir_value *scalar_of(ir_graph *g, ir_node *n, ir_value *v) {
  if (v->rank == 0) return v;
  return lw_later(g, n, "Reshape", 2, (ir_value *[]){v, ir_graph_ints(g, NULL, 0, NULL)});
}

static ir_value *known_scalar(ir_graph *g, const ir_graph *body, int k, tn_dtype t, int64_t v) {
  int rank = k < body->ninputs && body->inputs[k]->rank == 1 ? 1 : 0;
  return ir_graph_const(g, NULL, t, rank, (int64_t[]){1}, t == TN_BOOL ? (const void *)&(uint8_t){v != 0} : &v, true);
}

enum { MOST_COLLECTED = 1 << 30 }; /* bytes of what one loop collects */

typedef struct loop { /* a Repeat under construction */
  tn_ctx *ctx;
  ir_graph *g, *to;
  ir_node *n;
  int nins, ncarried;
  ir_value **ins, **carried;
  ir_value *turn; /* in `to`: null where nobody asks */
} loop;

static ir_value *carry(loop *l, ir_value *begin, const char *name, tn_dtype t, int rank, const ix *dims) {
  ir_value *v = ir_graph_input(l->to, name, t, rank, dims);
  IR_PUSH(l->ctx, l->ins, l->nins, begin);
  IR_PUSH(l->ctx, l->carried, l->ncarried, v);
  return v;
}

/* What a turn gives becomes what is collected when types are known (collect_all). */
typedef struct collected {
  int64_t most;       /* turns */
  int count;          /* slices that a turn gives */
  ir_value **slices;  /* of the body's graph */
  const int64_t *axis, *backwards;
  ir_value *last;     /* in `to`: the number of the last turn, for what is stored backwards; null: most - 1 */
} collected;

static ir_node *finish(loop *l, const collected *c) {
  for (int k = 0; k < c->count; k++) {
    ir_value *at = scalar_of(l->to, l->n, l->turn);
    if (c->backwards[k]) at = lw_later(l->to, l->n, "Sub", 2, (ir_value *[]){c->last ? c->last : ir_graph_scalar(l->to, NULL, TN_I64, (double)(c->most - 1)), at});
    ir_graph_output(l->to, lw_later(l->to, l->n, "Identity", 1, &c->slices[k]));
    ir_graph_output(l->to, at);
  }
  ir_node *m = lw_node_n(l->g, l->n, "tenon:Repeat", l->nins, l->ins, l->ncarried + c->count);
  m->opaque = true;
  ir_attr_int(m, "carried", l->ncarried);
  if (c->count) {
    ir_attr_int(m, "most", c->most);
    ir_attr_ints(m, "axes", c->count, c->axis);
  }
  set_graph(m, "body", l->to);
  return m;
}

/* The most turns of a loop that collects. */
static int64_t most_turns(tn_ctx *ctx, const ir_node *n) {
  int64_t most = n->in[0] ? lw_most(n->in[0]) : INT64_MAX;
  if (most == INT64_MAX)
    lw_unsupported(ctx, n, "it collects a slice a turn, and nothing says how many turns there are at most: a trip count is needed that is a number, or at most one (Min or Clip), beside which a condition may end it earlier");
  return most < 0 ? 0 : most;
}

void lw_keep_loop(ir_graph *g, ir_node *n, ir_graph *body, int64_t done, ir_value *cond, ir_value *const *states) {
  tn_ctx *ctx = g->ctx;
  int nstates = body->ninputs - 2, scans = body->noutputs - 1 - nstates;
  bool goes_on = lw_goes_on(body);
  ir_value *trip = n->in[0];
  if (goes_on && !trip) lw_unsupported(ctx, n, "it never ends");
  collected all = {.count = scans, .most = scans ? most_turns(ctx, n) : 0, .axis = IR_NEW_ARRAY(ctx, int64_t, scans + 1), .backwards = IR_NEW_ARRAY(ctx, int64_t, scans + 1)};
  apart a = {.ctx = ctx, .n = n, .inside = {.ctx = ctx}};
  note_inside(&a, body);
  note_reads(&a, body, body);
  if (trip && !goes_on) note_read(&a, body, trip);
  loop l = {.ctx = ctx, .g = g, .n = n, .to = ir_graph_new(ctx, body->name)};
  /* carried: the condition, the turn, the states */
  ir_value *count = !goes_on ? NULL : scalar_of(g, n, trip), *begin = cond ? scalar_of(g, n, cond) : NULL;
  if (count && begin) count = lw_later(g, n, "Where", 3, (ir_value *[]){begin, count, ir_graph_scalar(g, NULL, TN_I64, 0)});
  IR_PUSH(ctx, l.ins, l.nins, count);
  if (!count) {
    if (trip) {
      ir_value *some = lw_later(g, n, "Less", 2, (ir_value *[]){ir_graph_scalar(g, NULL, TN_I64, (double)done), scalar_of(g, n, trip)});
      begin = begin ? lw_later(g, n, "And", 2, (ir_value *[]){begin, some}) : some;
    }
    if (!begin) begin = ir_graph_const(g, NULL, TN_BOOL, 0, NULL, &(uint8_t){1}, true);
    carry(&l, begin, "cond", TN_BOOL, 0, NULL);
  }
  int of_turn = l.ncarried;
  if (a.reads_turn || (trip && !count) || scans) {
    ir_value *first = known_scalar(g, body, 0, TN_I64, done);
    l.turn = carry(&l, first, "turn", TN_I64, first->rank, first->dims);
  }
  int first_state = l.ncarried;
  for (int k = 0; k < nstates; k++) {
    if (states[k]->rank < 0 || !ir_static(states[k]) || lw_is_sized(states[k])) lw_unsupported(ctx, n, "state %d, '%s', has no known type", k, states[k]->name);
    carry(&l, states[k], states[k]->name, states[k]->dtype, states[k]->rank, states[k]->dims);
  }
  ir_value **by = stand_ins(&a, l.to, &l.nins, &l.ins), **args = IR_NEW_ARRAY(ctx, ir_value *, nstates + 2), **outs = IR_NEW_ARRAY(ctx, ir_value *, body->noutputs + 1);
  args[0] = l.turn ? l.turn : known_scalar(l.to, body, 0, TN_I64, 0);
  args[1] = known_scalar(l.to, body, 1, TN_BOOL, 1);
  for (int k = 0; k < nstates; k++) args[2 + k] = l.carried[first_state + k];
  lw_inline_apart(l.to, n, body, "loop", nstates + 2, args, a.nouter, a.outer, by, outs);
  ir_value *next = l.turn ? lw_later(l.to, n, "Add", 2, (ir_value *[]){l.turn, known_scalar(l.to, body, 0, TN_I64, 1)}) : NULL;
  if (!count) {
    ir_value *c = scalar_of(l.to, n, outs[0]);
    for (int i = 0; i < a.nouter && trip; i++)
      if (a.outer[i] == trip) c = lw_later(l.to, n, "And", 2, (ir_value *[]){c, scalar_of(l.to, n, lw_later(l.to, n, "Less", 2, (ir_value *[]){next, by[i]}))});
    ir_graph_update(l.to, l.carried[0], c);
  }
  if (l.turn) ir_graph_update(l.to, l.turn, next);
  for (int k = 0; k < nstates; k++) ir_graph_update(l.to, args[2 + k], lw_later(l.to, n, "Identity", 1, &outs[1 + k]));
  all.slices = outs + 1 + nstates;
  ir_node *m = finish(&l, &all);
  bool always = count && !begin && trip->data; /* so many turns, whatever happens */
  ir_value *turns = scans && !always ? scalar_of(g, n, m->out[of_turn]) : NULL;
  for (int k = 0; k < n->nout; k++) {
    if (!n->out[k]) continue;
    ir_value *v = k < nstates ? m->out[first_state + k] : m->out[l.ncarried + k - nstates];
    lw_replace(g, n, k, k >= nstates && turns ? lw_sized(g, n, v, turns, 0) : v);
  }
  n->dead = true;
}

/* A list of `count` numbers for the sequences; zeros where the attribute is missing. */
static int64_t *entries(tn_ctx *ctx, const ir_node *n, const char *attr, int count) {
  const int64_t *list;
  int64_t *all = IR_NEW_ARRAY(ctx, int64_t, count + 1);
  if (ir_attr_get_ints(n, attr, &list) == count) memcpy(all, list, (size_t)count * sizeof *all);
  return all;
}

void lw_keep_scan(ir_graph *g, ir_node *n, ir_graph *body, int states, const int64_t *axis, int64_t length, ir_value *sized) {
  tn_ctx *ctx = g->ctx;
  int sequences = n->nin - states, scans = body->noutputs - states;
  collected all = {.count = scans, .most = length, .axis = entries(ctx, n, "scan_output_axes", scans), .backwards = entries(ctx, n, "scan_output_directions", scans)};
  const int64_t *backwards = entries(ctx, n, "scan_input_directions", sequences);
  apart a = {.ctx = ctx, .n = n, .inside = {.ctx = ctx}};
  note_inside(&a, body);
  note_reads(&a, body, body);
  for (int k = states; k < n->nin; k++) note_read(&a, body, n->in[k]);
  if (sized) note_read(&a, body, sized);
  loop l = {.ctx = ctx, .g = g, .n = n, .to = ir_graph_new(ctx, body->name)};
  IR_PUSH(ctx, l.ins, l.nins, sized ? scalar_of(g, n, sized) : ir_graph_scalar(g, NULL, TN_I64, (double)length));
  l.turn = carry(&l, ir_graph_scalar(g, NULL, TN_I64, 0), "turn", TN_I64, 0, NULL);
  for (int k = 0; k < states; k++) {
    if (!ir_static(n->in[k]) || lw_is_sized(n->in[k])) lw_unsupported(ctx, n, "state %d, '%s', has no known type", k, n->in[k]->name);
    carry(&l, n->in[k], n->in[k]->name, n->in[k]->dtype, n->in[k]->rank, n->in[k]->dims);
  }
  ir_value **by = stand_ins(&a, l.to, &l.nins, &l.ins), **args = IR_NEW_ARRAY(ctx, ir_value *, n->nin + 1), **outs = IR_NEW_ARRAY(ctx, ir_value *, body->noutputs + 1);
  ir_value *one = ir_graph_scalar(l.to, NULL, TN_I64, 1), *last = ir_graph_scalar(l.to, NULL, TN_I64, (double)(length - 1));
  for (int i = 0; i < a.nouter && sized; i++)
    if (a.outer[i] == sized) last = all.last = lw_later(l.to, n, "Sub", 2, (ir_value *[]){scalar_of(l.to, n, by[i]), one});
  for (int k = 0; k < states; k++) args[k] = l.carried[1 + k];
  for (int k = states; k < n->nin; k++) {
    ir_value *at = backwards[k - states] ? lw_later(l.to, n, "Sub", 2, (ir_value *[]){last, l.turn}) : l.turn, *from = NULL;
    for (int i = 0; i < a.nouter; i++)
      if (a.outer[i] == n->in[k]) from = by[i];
    args[k] = lw_later_int(l.to, n, "Gather", 2, (ir_value *[]){from, at}, "axis", axis[k - states]);
  }
  lw_inline_apart(l.to, n, body, "loop", n->nin, args, a.nouter, a.outer, by, outs);
  ir_graph_update(l.to, l.turn, lw_later(l.to, n, "Add", 2, (ir_value *[]){l.turn, one}));
  for (int k = 0; k < states; k++) ir_graph_update(l.to, args[k], lw_later(l.to, n, "Identity", 1, &outs[k]));
  all.slices = outs + states;
  ir_node *m = finish(&l, &all);
  if (sized && scans) /* axes count from the end, too: those of outputs are known when types are */
    for (int k = 0; k < scans; k++)
      if (all.axis[k] < 0) lw_unsupported(ctx, n, "an axis of an output that counts from the end, where a run finds the length");
  for (int k = 0; k < n->nout; k++) {
    if (!n->out[k]) continue;
    ir_value *v = m->out[k < states ? 1 + k : l.ncarried + k - states];
    lw_replace(g, n, k, k >= states && sized ? lw_sized(g, n, v, m->out[0], all.axis[k - states]) : v);
  }
  n->dead = true;
}

static bool same_type(const ir_value *a, const ir_value *b) {
  bool same = a->dtype == b->dtype && a->rank == b->rank;
  for (int i = 0; i < a->rank && same; i++) same = a->dims[i] == b->dims[i];
  return same;
}

/* The slices and their places, results of the body until now, go into what is carried; its memory is theirs. */
static void collect_all(tn_ctx *ctx, ir_node *n, ir_graph *body) {
  int carried = lw_carried(n), results = ir_graph_results(body);
  int64_t most = ir_attr_get_int(n, "most", 0), bytes = 0;
  const int64_t *axes = NULL;
  ir_attr_get_ints(n, "axes", &axes);
  ir_value **all = body->outputs;
  body->outputs = NULL;
  body->noutputs = 0;
  for (int k = 0; k < carried; k++) IR_PUSH(ctx, body->outputs, body->noutputs, all[results + k]);
  for (int k = 0; k < results / 2; k++) {
    const ir_value *slice = all[2 * k];
    if (!ir_static(slice)) lw_unsupported(ctx, n, "'%s', which it collects, has no known shape", slice->name);
    int64_t size = 0;
    int axis = ir_axis(ctx, n, axes[k], slice->rank + 1);
    if (!ir_mul_size(most, ir_value_bytes(ctx, slice), &size) || !ir_add_size(bytes, size, &bytes) || bytes > MOST_COLLECTED)
      lw_unsupported(ctx, n, "what it collects in up to %lld turns takes more than %d MiB", (long long)most, MOST_COLLECTED >> 20);
    ix dims[IR_MAX_RANK];
    if (slice->rank >= IR_MAX_RANK - 3) lw_unsupported(ctx, n, "slices of rank %d", slice->rank);
    for (int i = 0; i <= slice->rank; i++) dims[i] = i == axis ? ix_index(ctx, most) : slice->dims[i - (i > axis)];
    ir_value *room = ir_graph_input(body, ir_format(ctx, "%s.all", slice->name), slice->dtype, slice->rank + 1, dims);
    ir_node *c = lw_node_n(body, n, "tenon:Collect", 3, (ir_value *[]){room, all[2 * k + 1], all[2 * k]}, 1);
    ir_attr_int(c, "axis", axis);
    ir_infer(ctx, c);
    ir_graph_update(body, room, c->out[0]);
    lw_set_like(n, carried + k, room->dtype, room);
  }
  ir_graph_sort(body);
}

static void repeat_infer(tn_ctx *ctx, ir_node *n) {
  ir_graph *body = lw_body(ctx, n, "body");
  int carried = lw_carried(n), results = ir_graph_results(body);
  if (n->out[carried - 1]->dtype != TN_NONE) return;
  lw_pass_infer(ctx, body, NULL);
  lw_refuse_sized(ctx, n, body);
  for (int k = 0; k < carried; k++) {
    if (!same_type(body->updates[k], body->outputs[results + k]))
      lw_unsupported(ctx, n, "a loop whose length is not known when compiling changes the type or shape of '%s'", body->updates[k]->name);
    lw_set_like(n, k, body->updates[k]->dtype, body->updates[k]);
  }
  collect_all(ctx, n, body);
}

/* ---- branches ---- */

void lw_keep_if(ir_graph *g, ir_node *n, ir_graph *yes, ir_graph *no) {
  tn_ctx *ctx = g->ctx;
  apart a = {.ctx = ctx, .n = n, .inside = {.ctx = ctx}};
  ir_graph *from[2] = {yes, no};
  for (int i = 0; i < 2; i++) note_inside(&a, from[i]);
  for (int i = 0; i < 2; i++) note_reads(&a, from[i], from[i]);
  ir_value **ins = NULL, *cond = scalar_of(g, n, n->in[0]);
  int nins = 0;
  IR_PUSH(ctx, ins, nins, cond);
  ir_graph *to[2];
  for (int i = 0; i < 2; i++) {
    to[i] = ir_graph_new(ctx, from[i]->name);
    ir_value **by = stand_ins(&a, to[i], &nins, i ? NULL : &ins), **outs = IR_NEW_ARRAY(ctx, ir_value *, from[i]->noutputs + 1);
    lw_inline_apart(to[i], n, from[i], i ? "else" : "then", 0, NULL, a.nouter, a.outer, by, outs);
    for (int k = 0; k < n->nout; k++) ir_graph_output(to[i], lw_later(to[i], n, "Identity", 1, &outs[k]));
  }
  ir_node *m = lw_node_n(g, n, "tenon:Branch", nins, ins, n->nout);
  m->opaque = true;
  set_graph(m, "then_branch", to[0]);
  set_graph(m, "else_branch", to[1]);
  for (int k = 0; k < n->nout; k++)
    if (n->out[k]) lw_replace(g, n, k, m->out[k]);
  n->dead = true;
}

static void branch_infer(tn_ctx *ctx, ir_node *n) {
  ir_graph *g[2] = {lw_body(ctx, n, "then_branch"), lw_body(ctx, n, "else_branch")};
  if (n->out[n->nout - 1]->dtype != TN_NONE) return;
  for (int i = 0; i < 2; i++) lw_pass_infer(ctx, g[i], NULL), lw_refuse_sized(ctx, n, g[i]);
  for (int k = 0; k < n->nout; k++) {
    if (!same_type(g[0]->outputs[k], g[1]->outputs[k])) lw_unsupported(ctx, n, "the branches of an If differ in type or shape, and its condition is not known when compiling");
    lw_set_like(n, k, g[0]->outputs[k]->dtype, g[0]->outputs[k]);
  }
}

/* ---- their programs ---- */

lw_region *lw_region_compile(tn_ctx *ctx, const ir_node *n, const lw_options *o) {
  lw_region *r = IR_NEW(ctx, lw_region);
  r->n = n;
  if (lw_is_repeat(n)) r->programs[r->nprograms++] = lw_compile(ctx, lw_body(ctx, n, "body"), o);
  else {
    r->programs[r->nprograms++] = lw_compile(ctx, lw_body(ctx, n, "then_branch"), o);
    r->programs[r->nprograms++] = lw_compile(ctx, lw_body(ctx, n, "else_branch"), o);
  }
  return r;
}

int64_t lw_region_bytes(const lw_region *r) {
  int64_t most = 64;
  for (int i = 0; i < r->nprograms; i++)
    if (r->programs[i]->arena_bytes > most) most = r->programs[i]->arena_bytes;
  return most;
}

typedef struct putter { /* one of the programs into another */
  tn_ctx *ctx;
  ir_program *p, *from;
  int *slot, *kernel; /* numbers there, by those here; kernel -1: not asked for yet */
  int (*number)(void *user, const ir_program_kernel *k);
  void *user;
} putter;

/* A slot of p seen as one of `from`, some bytes on. */
static ir_slot part_of(const ir_slot *whole, ir_slot s) {
  s.kind = whole->kind;
  s.index = whole->index;
  s.offset += whole->offset;
  s.inout = whole->inout;
  return s;
}

static void put_slots(putter *x, const int *in, const int *out, int room) {
  ir_program *p = x->p;
  bool *packing = IR_NEW_ARRAY(x->ctx, bool, x->from->nslots + 1);
  for (int i = 0; i < x->from->npack; i++)
    for (int a = 0; a < x->from->pack[i].nargs; a++) packing[x->from->pack[i].args[a]] = true;
  for (int i = 0; i < x->from->nslots; i++) {
    ir_slot s = x->from->slots[i];
    switch (s.kind) {
    case IR_SLOT_INPUT: s = part_of(&p->slots[in[s.index]], s); break;
    case IR_SLOT_OUTPUT: s = part_of(&p->slots[out[s.index]], s); break;
    case IR_SLOT_RAW: s.index += p->nraw; break;
    case IR_SLOT_WEIGHTS: s.offset += p->weights_bytes; break;
    case IR_SLOT_ARENA:
      if (!packing[i]) s = part_of(&p->slots[room], s);
      break;
    case IR_SLOT_STATE: ir_bug(x->ctx, "a state within a region");
    }
    x->slot[i] = p->nslots;
    IR_PUSH(x->ctx, p->slots, p->nslots, s);
  }
  p->nraw += x->from->nraw;
  if (!ir_add_size(p->weights_bytes, (x->from->weights_bytes + 63) & ~(int64_t)63, &p->weights_bytes)) ir_fail(x->ctx, TN_EINPUT, "the weights' size overflows");
  if (x->from->pack_arena_bytes > p->pack_arena_bytes) p->pack_arena_bytes = x->from->pack_arena_bytes;
}

static ir_inst *put_insts(putter *x, int n, const ir_inst *insts) {
  ir_inst *to = IR_NEW_ARRAY(x->ctx, ir_inst, n + 1);
  for (int i = 0; i < n; i++) {
    to[i] = insts[i];
    to[i].args = IR_NEW_ARRAY(x->ctx, int, insts[i].nargs + 1);
    for (int a = 0; a < insts[i].nargs; a++) to[i].args[a] = x->slot[insts[i].args[a]];
    if (insts[i].kind == IR_CALL) {
      int *k = &x->kernel[insts[i].kernel];
      if (*k < 0) *k = x->number(x->user, &x->from->kernels[insts[i].kernel]);
      to[i].kernel = *k;
    }
    to[i].body = put_insts(x, insts[i].nbody, insts[i].body);
    to[i].other = put_insts(x, insts[i].nother, insts[i].other);
  }
  return to;
}

/* The single element of a slot, by a slot with a name of its own: values of a program name what they load. */
static ix element_of(tn_ctx *ctx, ir_program *p, int slot, const char *what) {
  ir_slot s = p->slots[slot];
  s.name = ir_intern(ctx, ir_format(ctx, "%s.%u", what, ctx->next_id++));
  s.rank = 0;
  IR_PUSH(ctx, p->slots, p->nslots, s);
  return ix_load(ctx, ir_buf_new(ctx, s.name, s.dtype, 0, NULL, NULL, IR_GLOBAL), NULL);
}

void lw_region_put(tn_ctx *ctx, ir_program *p, const lw_region *r, const int *in, const int *out, int room, int (*kernel)(void *user, const ir_program_kernel *k), void *user) {
  ir_inst *insts[2] = {0};
  bool repeat = lw_is_repeat(r->n);
  int carried = lw_carried(r->n), *ports = IR_NEW_ARRAY(ctx, int, r->n->nin + r->n->nout + 1);
  /* inputs of a body: what is carried, where the node's results are; then what is captured; then what is collected, at results again */
  for (int k = 1; k < r->n->nin; k++) ports[k - 1] = repeat && k <= carried ? out[k - 1] : in[k];
  for (int k = carried; repeat && k < r->n->nout; k++) ports[r->n->nin - 1 + k - carried] = out[k];
  for (int i = 0; i < r->nprograms; i++) {
    putter x = {.ctx = ctx, .p = p, .from = r->programs[i], .number = kernel, .user = user};
    x.slot = IR_NEW_ARRAY(ctx, int, x.from->nslots + 1);
    x.kernel = IR_NEW_ARRAY(ctx, int, x.from->nkernels + 1);
    for (int k = 0; k < x.from->nkernels; k++) x.kernel[k] = -1;
    put_slots(&x, ports, out, room);
    ir_inst *pack = put_insts(&x, x.from->npack, x.from->pack);
    for (int k = 0; k < x.from->npack; k++) IR_PUSH(ctx, p->pack, p->npack, pack[k]);
    insts[i] = put_insts(&x, x.from->nrun, x.from->run);
  }
  ir_inst c = {.kind = IR_INST_IF, .body = insts[0], .nbody = r->programs[0]->nrun};
  if (!repeat) c.other = insts[1], c.nother = r->programs[1]->nrun;
  for (int k = 0; repeat && k < carried; k++) {
    ir_inst copy = {.kind = IR_COPY_SLOT, .nargs = 2, .args = IR_NEW_ARRAY(ctx, int, 2), .name = r->n->name};
    copy.args[0] = out[k];
    copy.args[1] = in[1 + k];
    IR_PUSH(ctx, p->run, p->nrun, copy);
  }
  if (repeat && in[0] >= 0) {
    enum { MOST_TURNS = 1 << 30 };
    c.kind = IR_INST_FOR;
    c.value = ix_max(ctx, ix_index(ctx, 0), ix_min(ctx, ix_index(ctx, MOST_TURNS), ix_cast(ctx, TN_INDEX, element_of(ctx, p, in[0], "count"))));
    c.var = ir_var_new(ctx, "turn", TN_INDEX, 0, MOST_TURNS);
  } else {
    if (repeat) c.kind = IR_INST_WHILE;
    c.value = element_of(ctx, p, repeat ? out[0] : in[0], "cond");
  }
  IR_PUSH(ctx, p->run, p->nrun, c);
}

const ir_op lw_ops_region[] = {
    {.name = "Repeat", .domain = "tenon", .kind = IR_OP_CONTROL, .since = 1, .min_in = 0, .max_in = -1, .min_out = 1, .max_out = -1, .attrs = "body:g carried:i most:i axes:I", .infer = repeat_infer},
    {.name = "Branch", .domain = "tenon", .kind = IR_OP_CONTROL, .since = 1, .min_in = 1, .max_in = -1, .min_out = 1, .max_out = -1, .attrs = "then_branch:g else_branch:g", .infer = branch_infer},
    {0}};
