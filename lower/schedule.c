/* schedule.c — reading schedules and running their steps; see schedule.h. */
#include "lower/schedule_internal.h"
#include "lower/problem.h"
#include "lower/winograd.h"
#include "ir/text.h"
#include <stdio.h>
#include <string.h>

/* ---- algorithm name ... ---- */

static const struct {
  const char *name;
  bool (*apply)(sched *s);
} algorithms[] = {{"winograd", sched_winograd}, {"winograd_weights", sched_winograd_weights}, {"attention", sched_attention}};

bool sched_algorithm(sched *s) {
  for (int i = 0; i < IR_COUNT(algorithms); i++)
    if (strcmp(algorithms[i].name, s->arg[0]) == 0) return algorithms[i].apply(s);
  return refuse(s, "there is no algorithm '%s'", s->arg[0]);
}

static const sched_step steps[] = {
    {"algorithm", "si*", sched_algorithm},
    {"split", "vinn", sched_split},       {"fuse", "vvn", sched_fuse},          {"reorder", "vv*", sched_reorder},
    {"unroll", "v", sched_unroll},        {"vectorize", "v", sched_vectorize},  {"parallel", "v", sched_parallel},
    {"serial", "v", sched_serial},        {"peel", "vii", sched_peel},          {"narrow", "v", sched_narrow},       {"tail", "v", sched_tail},
    {"distribute", "v*", sched_distribute}, {"raise", "vv*", sched_raise},  {"rfactor", "vinn", sched_rfactor}, {"splitk", "vin", sched_splitk}, {"chunk", "vinn", sched_chunk},      {"layout", "bs", sched_layout},
    {"tensorize", "sv", sched_tensorize}, {"cache", "bvn", sched_cache},          {"turn", "bvin", sched_turn},          {"fill", "bvvn", sched_fill}, {"prefetch", "bvivn", sched_prefetch},
    {"muladd", "", sched_muladd},
};
const char *const lw_schedule_steps[] = {"algorithm", "split",  "fuse",   "reorder",    "unroll",  "vectorize", "parallel",  "serial",
                                         "peel",   "narrow", "tail", "distribute", "raise", "rfactor", "splitk", "chunk", "layout", "tensorize", "cache", "turn", "fill", "prefetch", "muladd", NULL};

bool refuse(sched *s, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  s->reason = ir_strdup(s->ctx, text);
  return false;
}

/* ---- finding and replacing loops ---- */

typedef struct find {
  const char *name; /* interned */
  int count;
  const ir_stmt *found;
} find;

static void find_loops(find *f, const ir_stmt *s) {
  if (!s) return;
  if (s->kind == IR_FOR && s->var->name == f->name) {
    f->count++;
    f->found = s;
  }
  for (int i = 0; i < s->n; i++) find_loops(f, s->items[i]);
  find_loops(f, s->body);
  find_loops(f, s->other);
}

const ir_stmt *sched_loop(sched *s, const char *name) {
  find f = {.name = ir_intern(s->ctx, name)};
  find_loops(&f, s->k->body);
  if (f.count == 0) refuse(s, "there is no loop '%s'", name);
  if (f.count > 1) refuse(s, "there are %d loops '%s'", f.count, name);
  return f.count == 1 ? f.found : NULL;
}

bool sched_new_name(sched *s, const char *name) {
  find f = {.name = ir_intern(s->ctx, name)};
  find_loops(&f, s->k->body);
  return f.count ? refuse(s, "there is already a loop '%s'", name) : true;
}

typedef struct replacement {
  ir_rewriter r;
  sched *s;
  const ir_stmt *loop;
  const ir_stmt *(*fn)(sched *s, const ir_stmt *loop, void *user);
  void *user;
  bool failed;
} replacement;

static const ir_stmt *replace_visit(ir_rewriter *r, const ir_stmt *st) {
  replacement *p = (replacement *)r;
  if (st != p->loop) return st;
  int before = p->s->reason != NULL;
  const ir_stmt *by = p->fn(p->s, st, p->user);
  p->failed |= !before && p->s->reason;
  return by;
}

bool sched_replace(sched *s, const char *name, const ir_stmt *(*fn)(sched *s, const ir_stmt *loop, void *user), void *user) {
  const ir_stmt *loop = sched_loop(s, name);
  if (!loop) return false;
  replacement p = {.r = {.ctx = s->ctx, .stmt = replace_visit}, .s = s, .loop = loop, .fn = fn, .user = user};
  const ir_stmt *body = ir_rewrite(&p.r, s->k->body);
  if (p.failed) return false;
  s->k->body = body;
  return true;
}

bool sched_extent(const ir_stmt *loop, int64_t *n) {
  int64_t lo, hi;
  if (!ix_const_value(loop->lo, &lo) || !ix_const_value(loop->hi, &hi)) return false;
  *n = hi > lo ? hi - lo : 0;
  return true;
}

ir_var *sched_var(sched *s, const char *name, ix lo, ix hi) {
  return ir_var_new(s->ctx, name, TN_INDEX, lo->lo, hi->hi == INT64_MAX ? INT64_MAX : hi->hi - 1);
}

/* ---- text ---- */

static const sched_step *find_step(const char *name) {
  for (int i = 0; i < IR_COUNT(steps); i++)
    if (strcmp(steps[i].name, name) == 0) return &steps[i];
  return NULL;
}

/* Reads one step's arguments; "->" between old and new names is punctuation. */
static const sched_step *read_step(sched *s, ir_lexer *l) {
  const sched_step *step = l->token == IR_T_NAME ? find_step(l->word) : NULL;
  if (!step) ir_lex_expected(l, "a schedule step");
  ir_lex_next(l);
  s->nargs = 0;
  const char *form = step->args;
  char kind = 0;
  for (;;) {
    if (*form == '*') {
      if (l->token == IR_T_LINE || l->token == IR_T_END) break;
    } else if (!*form) break;
    else {
      char next = *form++;
      if (next == 'n' && kind != 'n') ir_lex_expect(l, "->");
      kind = next;
    }
    if (s->nargs == SCHED_MAX_ARGS) ir_lex_fail(l, "more than %d arguments", SCHED_MAX_ARGS);
    s->num[s->nargs] = 0;
    if (kind == 'i') {
      s->num[s->nargs] = ir_lex_int(l, "a number");
      s->arg[s->nargs] = ir_format(s->ctx, "%lld", (long long)s->num[s->nargs]);
    } else if (kind == 's') s->arg[s->nargs] = l->token == IR_T_STRING ? ir_lex_string(l, "a string") : ir_lex_name(l, "a word");
    else s->arg[s->nargs] = ir_lex_name(l, kind == 'b' ? "a buffer" : "a loop name");
    s->nargs++;
  }
  if (l->token != IR_T_LINE && l->token != IR_T_END) ir_lex_expected(l, "the end of the step");
  return step;
}

static void put_step(ir_text *t, const sched *s, const sched_step *step) {
  ir_put(t, "%s", step->name);
  const char *form = step->args;
  char kind = 0;
  for (int i = 0; i < s->nargs; i++) {
    char next = *form && *form != '*' ? *form++ : kind;
    if (next == 'n' && kind != 'n') ir_put(t, " ->");
    kind = next;
    ir_put(t, " ");
    if (kind == 'i') ir_put(t, "%s", s->arg[i]);
    else if (kind == 's') ir_put_string(t, s->arg[i]);
    else ir_put_name(t, s->arg[i]);
  }
  ir_put(t, "\n");
}

const char *sched_print(tn_ctx *ctx, const char *text, void (*change)(sched *s, const sched_step *step, void *user), void *user) {
  sched s = {.ctx = ctx};
  ir_text out = {.ctx = ctx};
  ir_lexer l;
  ir_lex_start(&l, ctx, text, "schedule", true);
  while (l.token != IR_T_END) {
    if (l.token == IR_T_LINE) {
      ir_lex_next(&l);
      continue;
    }
    const sched_step *step = read_step(&s, &l);
    if (change) change(&s, step, user);
    put_step(&out, &s, step);
  }
  return ir_text_str(&out);
}

const char *lw_schedule_canonical(tn_ctx *ctx, const char *text) { return sched_print(ctx, text, NULL, NULL); }

const ir_kernel *lw_made_kernel(tn_ctx *ctx, const ir_buf *b) {
  ir_kernel *k = IR_NEW(ctx, ir_kernel);
  *k = *b->made;
  k->bufs = ir_grow(ctx, k->bufs, 2, 2, sizeof *k->bufs);
  k->bufs[1] = ir_buf_new(ctx, "out1", b->dtype, b->rank, b->shape, b->layout, IR_GLOBAL);
  k->bufs[1]->access = IR_OUT;
  k->body = ir_subst_buf(ctx, k->body, b->made->bufs[1], k->bufs[1]);
  return k;
}

double lw_schedule_error(tn_ctx *ctx, const ir_kernel *k, const char *text) {
  sched s = {.ctx = ctx};
  ir_lexer l;
  double worst = 0;
  ir_lex_start(&l, ctx, text, "schedule", true);
  while (l.token != IR_T_END) {
    if (l.token == IR_T_LINE) {
      ir_lex_next(&l);
      continue;
    }
    lw_winograd w;
    if (read_step(&s, &l)->apply == sched_algorithm && s.nargs > 1 && lw_winograd_of((int)s.num[1], &w) && w.error > worst) worst = w.error;
  }
  return worst > 0 && ir_is_float(lw_problem_of(ctx, k).dtype) ? worst : 0;
}

const ir_kernel *lw_schedule_apply(tn_ctx *ctx, const ir_kernel *k, const char *text, const char **reason) {
  sched s = {.ctx = ctx, .k = IR_NEW(ctx, ir_kernel)};
  *s.k = *k;
  s.k->bufs = ir_grow(ctx, k->bufs, (size_t)k->nbufs, (size_t)k->nbufs, sizeof *k->bufs);
  if (reason) *reason = NULL;
  ir_lexer l;
  ir_lex_start(&l, ctx, text, "schedule", true);
  while (l.token != IR_T_END) {
    if (l.token == IR_T_LINE) {
      ir_lex_next(&l);
      continue;
    }
    const char *place = ir_lex_place(&l, l.at);
    const sched_step *step = read_step(&s, &l);
    s.reason = NULL;
    if (!step->apply(&s)) {
      ir_text t = {.ctx = ctx};
      put_step(&t, &s, step);
      t.s[--t.n] = 0;
      if (reason) *reason = ir_format(ctx, "%s: %s: %s", place, t.s, s.reason ? s.reason : "refused");
      return NULL;
    }
  }
  return s.k;
}
