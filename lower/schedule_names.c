/* schedule_names.c — schedules in the names of a kernel's canonical text, and back. */
#include "lower/schedule_internal.h"
#include "ir/text.h"
#include <string.h>

/* Loops and buffers have names of their own. */
typedef struct renaming {
  tn_ctx *ctx;
  ir_map of[2];    /* name to its other name: loops, buffers */
  ir_map taken[2]; /* names of the kernel that the text is for */
  int used;        /* names of the kernel that the text spoke of */
} renaming;

static void learn(renaming *r, bool back, int kind, const char *own, const char *canonical) {
  const char *from = ir_intern(r->ctx, back ? canonical : own), *to = ir_intern(r->ctx, back ? own : canonical);
  if (!ir_map_get(&r->of[kind], from)) ir_map_set(&r->of[kind], from, (void *)(uintptr_t)to);
  ir_map_set(&r->taken[kind], to, (void *)(uintptr_t)to);
}

/* Names that steps derive have the name they are from in front: k.o, ri.i0. */
static const char *known(renaming *r, int kind, const char *name) {
  for (size_t n = strlen(name); n; n--) {
    if (name[n] && name[n] != '.') continue;
    const char *to = ir_map_get(&r->of[kind], ir_intern(r->ctx, ir_strndup(r->ctx, name, n)));
    if (to) return ir_intern(r->ctx, ir_format(r->ctx, "%s%s", to, name + n));
  }
  return NULL;
}

static const char *rename_old(renaming *r, int kind, const char *name) {
  const char *to = known(r, kind, name);
  r->used += to != NULL;
  return to ? to : name;
}

/* A name that a step gives: another one where the other kernel has it already. */
static const char *rename_new(renaming *r, int kind, const char *name) {
  const char *to = known(r, kind, name);
  if (to) return to;
  to = ir_intern(r->ctx, name);
  while (ir_map_get(&r->taken[kind], to)) to = ir_intern(r->ctx, ir_format(r->ctx, "%s_", to));
  ir_map_set(&r->of[kind], ir_intern(r->ctx, name), (void *)(uintptr_t)to);
  return to;
}

static void rename_step(sched *s, const sched_step *step, void *user) {
  renaming *r = user;
  const char *form = step->args;
  char kind = 0;
  for (int i = 0; i < s->nargs; i++) {
    kind = *form && *form != '*' ? *form++ : kind;
    if (kind == 'v') s->arg[i] = rename_old(r, 0, s->arg[i]);
    else if (kind == 'b') s->arg[i] = rename_old(r, 1, s->arg[i]);
    else if (kind == 'n') s->arg[i] = rename_new(r, 0, s->arg[i]);
  }
}

static const char *renamed(tn_ctx *ctx, const ir_kernel *k, const char *text, bool back) {
  renaming r = {.ctx = ctx, .of = {{.ctx = ctx}, {.ctx = ctx}}, .taken = {{.ctx = ctx}, {.ctx = ctx}}};
  int n;
  const ir_named *names = ir_kernel_names(ctx, k, &n);
  for (int i = 0; i < n; i++) learn(&r, back, names[i].buffer, names[i].own, names[i].canonical);
  const char *other = sched_print(ctx, text, rename_step, &r);
  return r.used ? other : lw_schedule_canonical(ctx, text); /* speaks of none: it is in the other names already */
}

const char *lw_schedule_unnamed(tn_ctx *ctx, const ir_kernel *k, const char *text) { return renamed(ctx, k, text, false); }
const char *lw_schedule_named(tn_ctx *ctx, const ir_kernel *k, const char *text) { return renamed(ctx, k, text, true); }
