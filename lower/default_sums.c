/* default_sums.c — long sums in parts, where nothing may be lost for speed.
 *
 * A sum's rounding errors grow with the root of what is added up in one accumulator. In parts of `b` of `n` terms, which are
 * then added, they grow with the root of b + n / b (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, 4.2).
 * Parts stay in the tile's registers; between them the tile's sums are an array in the first cache. */
#include "lower/default_schedule.h"
#include <string.h>

/* Terms of a part, and of a window's where few are summed: other libraries take 72 to 256. Of tiles of 12 vectors a part of 144
 * takes some 900 cycles, to add it 20. */
enum { PART = 144, SHORT = 72, FEW = 1024 };

/* Steps of one part of a loop whose steps add `terms` each, in whole blocks. */
static int64_t steps_of_part(int64_t steps, int64_t terms, int64_t block) {
  int64_t part = terms > 1 && steps * terms <= FEW ? SHORT : PART, most = part / (terms * block) > 1 ? part / (terms * block) : 1, blocks = steps / block;
  for (int64_t d = most; 2 * d > most; d--)
    if (blocks % d == 0) return d * block;
  int64_t parts = (blocks + most - 1) / most, some = (blocks + parts - 1) / parts;
  while (block == 1 && steps % some == 1 && some > 1) some--; /* what is left is a loop, too, which has a part */
  return some * block;
}

bool lw_sums_in_parts(lw_plan *p, int64_t block, const char *tile, lw_sums *s) {
  const lw_problem *q = &p->p;
  const ir_kernel *before = p->k;
  size_t length = p->text.n;
  int at = 0;
  while (at < q->nred - 1 && q->red_extent[at] == 1) at++;
  const char *sum = q->red[at]->var->name;
  int64_t steps = q->red_extent[at], terms = 1, taken = 0;
  for (int i = at + 1; i < q->nred; i++) terms *= q->red_extent[i];
  *s = (lw_sums){.n = 1, .name = {sum}};
  if (p->u.accuracy > 0 || !ir_is_float(q->dtype) || terms < 1 || steps < 2 * block || steps < 2 || steps * terms <= PART) return true;
  int64_t each = steps_of_part(steps - steps % block, terms, block), rest[2] = {steps % block, (steps - steps % block) % each};
  if (at) { /* loops of one step go inside: what is distributed stands directly in the parts */
    ir_text order = {.ctx = p->ctx};
    for (int i = 0; i < q->nred; i++)
      if (lw_has_loop(p, q->red[(at + i) % q->nred]->var->name)) ir_put(&order, " %s", q->red[(at + i) % q->nred]->var->name);
    lw_step(p, "reorder%s", ir_text_str(&order));
  }
  /* what is left over is apart: no guards in the loops, each part a sum in registers */
  for (int i = 0; i < 2; i++) {
    if (!rest[i] || (taken += rest[i]) >= steps) continue;
    const char *ending = i ? rest[0] ? ".b2" : ".b" : ".b", *name = ir_format(p->ctx, "%s%s", sum, ending);
    if (!lw_step(p, "peel %s 0 %lld", sum, (long long)rest[i])) break;
    if (lw_has_loop(p, name)) s->name[s->n++] = name; /* a single step is no loop */
  }
  bool done = true;
  for (int i = 0; i < s->n && done; i++) {
    int64_t lo, hi;
    const ir_stmt *l = ir_find_loop(p->k->body, s->name[i]);
    s->part[i] = ir_format(p->ctx, "ko%s", s->name[i] + strlen(sum));
    done = ix_const_value(l->lo, &lo) && ix_const_value(l->hi, &hi) && lw_step(p, "chunk %s %lld -> %s %s", s->name[i], (long long)lw_min(each, hi - lo), s->part[i], s->name[i]);
  }
  done = done && lw_step(p, "distribute %s", tile);
  for (int i = 0; i < s->n && done; i++) {
    ir_text loops = {.ctx = p->ctx};
    const ir_stmt *l = ir_find_loop(p->k->body, s->part[i]);
    for (l = l ? l->body : NULL; l && (l->kind == IR_FOR || l->kind == IR_IF); l = l->body)
      if (l->kind == IR_FOR) ir_put(&loops, " %s", l->var->name);
    done = loops.n && lw_step(p, "distribute%s", ir_text_str(&loops));
  }
  if (done) return s->parts = true;
  p->k = before;
  lw_cut(p, length);
  *s = (lw_sums){.n = 1, .name = {sum}};
  return false;
}
