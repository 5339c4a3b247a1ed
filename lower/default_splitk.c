/* default_splitk.c — sums in parts that are tasks of their own (split-K), where the results are too few to be shared out.
 *
 * Both nests that the step splitk makes have schedules: the parts, a product for each, that which the product of one part
 * would have; the sums of parts a plain one. */
#include "lower/default_schedule.h"
#include <string.h>

enum {
  TASKS = 8,          /* as many are wanted */
  LEAST_STEPS = 512,  /* of a part, so that a tile's own work is little */
  MOST_PARTS = 16,
};

/* What parts may cost of one thread's time: they are stored, loaded and added. */
static const double DEAR = 0.02;

int64_t lw_tasks_of(const ir_kernel *k) {
  int64_t tasks = 1, lo, hi;
  const ir_stmt *s = k->body;
  while (s && (s->kind == IR_ALLOC || s->kind == IR_LET)) s = s->body;
  for (; s && s->kind == IR_FOR && s->loop == IR_PARALLEL && ix_const_value(s->lo, &lo) && ix_const_value(s->hi, &hi); s = s->body) tasks *= hi - lo;
  return tasks;
}

/* Whether it is a product of floats, one loop its sum, whose results all have a size. */
static bool is_product(const lw_problem *q, double *results) {
  *results = 1;
  if (q->kind != LW_CONTRACTION || !ir_is_float(q->dtype) || q->nred != 1 || q->guard || q->red_extent[0] < 2) return false;
  for (int i = 0; i < q->nout; i++) {
    if (q->extent[i] < 1) return false;
    *results *= (double)q->extent[i];
  }
  return true;
}

static int64_t parts_by_rule(const lw_plan *p, int64_t tasks, double results) {
  const lw_problem *q = &p->p;
  int64_t k = q->red_extent[0], lanes = cg_target_lanes(p->t, q->dtype);
  double size = (double)ir_dtype_bytes(q->dtype);
  for (int64_t parts = 2; parts <= MOST_PARTS && tasks < TASKS; parts++) {
    if (k % parts || k / parts < LEAST_STEPS || (tasks * parts < TASKS && parts * 2 <= MOST_PARTS && k % (parts * 2) == 0 && k / parts >= 2 * LEAST_STEPS)) continue;
    double cycles = results * (double)k / (double)(2 * lanes), more = 1.5 * (double)parts * results * 2 / (double)lanes;
    return more <= DEAR * cycles && (double)parts * results * size <= (double)p->t->l2_bytes / 4 ? parts : 1;
  }
  return 1;
}

/* The first nest as a kernel, the parts its result. */
static const ir_kernel *part_kernel(tn_ctx *ctx, const ir_kernel *k) {
  const ir_buf *part = k->body->buf;
  ir_kernel *own = IR_NEW(ctx, ir_kernel);
  *own = *k;
  own->nbufs = 0, own->bufs = NULL;
  const ir_stmt *nest = k->body->body->items[0];
  for (int i = 0; i < k->nbufs; i++)
    if (k->bufs[i]->access == IR_IN) IR_PUSH(ctx, own->bufs, own->nbufs, k->bufs[i]);
  ir_buf *out = ir_buf_new(ctx, part->name, part->dtype, part->rank, part->shape, NULL, IR_GLOBAL);
  out->access = IR_OUT;
  IR_PUSH(ctx, own->bufs, own->nbufs, out);
  own->body = ir_subst_buf(ctx, nest, part, out);
  return own;
}

/* The lines of a schedule; hints that are refused are left out. */
static bool take_steps(lw_plan *p, const char *text) {
  for (const char *line = text, *end; *line; line = *end ? end + 1 : end) {
    end = line + strcspn(line, "\n");
    if (end > line && !lw_step(p, "%.*s", (int)(end - line), line) && strncmp(line, "prefetch", 8)) return false;
  }
  return true;
}

/* Parts added up, vectors of results at a time. */
static void sum_parts(lw_plan *p, double results, int64_t parts) {
  enum { WORTH_TASKS = 1 << 15 }; /* additions */
  const lw_problem *q = &p->p;
  const char *last = ir_format(p->ctx, "%s.s", q->out[q->nout - 1]->var->name), *first = ir_format(p->ctx, "%s.s", q->out[0]->var->name);
  int64_t lanes = cg_target_lanes(p->t, q->dtype);
  if (lw_step(p, "split %s %lld -> %s.o %s.v", last, (long long)lanes, last, last)) {
    if (strcmp(first, last) == 0) first = ir_format(p->ctx, "%s.o", last);
    if (lw_step(p, "distribute %s.v", last)) lw_kind(p, "vectorize", ir_format(p->ctx, "%s.v", last));
  }
  if (parts <= 8) lw_kind(p, "unroll", "kp.s");
  if (results * (double)parts >= WORTH_TASKS) lw_step(p, "parallel %s", first);
}

/* In a place of its own: with `parts` (0: by the rule, of a kernel that has so many tasks without). */
bool lw_default_splitk(lw_plan *p, int64_t tasks) {
  tn_ctx *ctx = p->ctx;
  const lw_problem *q = &p->p;
  double results;
  if (!is_product(q, &results)) return false;
  int64_t parts = p->u.parts ? p->u.parts : parts_by_rule(p, tasks, results);
  if (parts < 2 || !lw_step(p, "splitk %s %lld -> kp", q->red[0]->var->name, (long long)parts)) return false;
  lw_tunables u = p->u, got;
  u.parts = 1;
  const char *steps = lw_schedule_with(ctx, part_kernel(ctx, p->k), p->t, &u, &got, NULL);
  if (!take_steps(p, steps)) return false;
  sum_parts(p, results, parts);
  p->got = got;
  p->got.parts = (int)parts;
  p->axis = got.axis;
  return true;
}
