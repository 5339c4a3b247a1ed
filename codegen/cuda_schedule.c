/* cuda_schedule.c — which schedule a kernel gets on a GPU: the rows of this table in order, the first that fits. */
#include "codegen/cuda_internal.h"
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  const cu_tile *(*make)(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const cu_choice *c, const char **reason);
} rows[] = {
    {"tma", cu_schedule_tma},
    {"wgmma", cu_schedule_wgmma},
    {"mma", cu_schedule_mma},
    {"tf32", cu_schedule_tf32},
    {"tile", cu_schedule_tile},
    {"attend.group", cu_schedule_attend_group},
    {"attend", cu_schedule_attend},
    {"attend.tf32", cu_schedule_attend_tf32},
    {"attend.simt", cu_schedule_attend_simt},
    {"window", cu_schedule_window},
    {"rows", cu_schedule_rows},
    {"columns", cu_schedule_columns},
    {"transpose", cu_schedule_transpose},
    {"threads", cu_schedule_threads},
    {"serial", cu_schedule_serial},
};

const cu_tile *cu_tile_new(tn_ctx *ctx, const ir_kernel *k, const ir_stmt *body, int threads, const char *choice) {
  ir_kernel *r = IR_NEW(ctx, ir_kernel);
  *r = *k;
  r->body = body;
  cu_tile *t = IR_NEW(ctx, cu_tile);
  *t = (cu_tile){.kernel = r, .threads = threads, .choice = choice};
  return t;
}

const ir_kernel *cu_variant(tn_ctx *ctx, const ir_kernel *k, ir_buf *more, const ir_stmt *body) {
  ir_kernel *r = IR_NEW(ctx, ir_kernel);
  *r = *k;
  r->bufs = IR_NEW_ARRAY(ctx, ir_buf *, k->nbufs + 1);
  for (int i = 0; i < k->nbufs; i++) r->bufs[i] = k->bufs[i];
  r->bufs[r->nbufs++] = more;
  r->body = body;
  return r;
}

static int64_t number(tn_ctx *ctx, const char **s) {
  char *end;
  long long v = strtoll(*s, &end, 10);
  if (end == *s || v < 0 || v > 1 << 20) ir_fail(ctx, TN_EINPUT, "GPU schedule: '%s': a small number is wanted", *s);
  for (*s = end; **s == ' ';) ++*s;
  return v;
}

static const struct {
  const char *name;
  int numbers, most;
} words[CU_WORDS] = {[CU_STORE] = {"store", 0, 0}, [CU_PERSIST] = {"persist", 2, 2}, [CU_PINGPONG] = {"pingpong", 0, 0}, [CU_CLUSTER] = {"cluster", 1, 2}, [CU_STREAMK] = {"streamk", 0, 0}};

/* Numbers, then words with numbers of their own. */
static cu_choice choice_of(tn_ctx *ctx, const char *s) {
  cu_choice c = {0};
  while (*s >= '0' && *s <= '9') {
    if (c.n == IR_COUNT(c.arg)) ir_fail(ctx, TN_EINPUT, "GPU schedule: more numbers than any takes");
    c.arg[c.n++] = number(ctx, &s);
  }
  while (*s) {
    int w = 0;
    size_t n = strcspn(s, " ");
    while (w < CU_WORDS && (strlen(words[w].name) != n || strncmp(words[w].name, s, n))) w++;
    if (w == CU_WORDS) ir_fail(ctx, TN_EINPUT, "GPU schedule: '%s' is no small number and no word that is known", s);
    c.word[w].given = true;
    for (s += n; *s == ' ';) s++;
    for (int i = 0; i < words[w].most && (i < words[w].numbers || (*s >= '0' && *s <= '9')); i++) c.word[w].arg[i] = number(ctx, &s);
  }
  return c;
}

static bool has_words(const cu_choice *c) {
  bool any = false;
  for (int w = 0; w < CU_WORDS; w++) any |= c->word[w].given;
  return any;
}

const cu_tile *cu_schedule(tn_ctx *ctx, const cu_target *t, const ir_kernel *k, const char *choice, const char **reason) {
  const char *why = "no schedule fits";
  size_t n = choice ? strcspn(choice, " ") : 0;
  if (choice && strncmp(choice, "split ", 6) == 0) {
    char *rest;
    long parts = strtol(choice + 6, &rest, 10);
    const cu_tile *r = *rest == ' ' && parts > 1 ? cu_schedule_split(ctx, t, k, parts, rest + 1, &why) : (why = "split: PARTS, then a schedule", NULL);
    if (reason) *reason = r ? NULL : why;
    return r;
  }
  for (int i = 0; i < IR_COUNT(rows); i++) {
    if (choice && (strlen(rows[i].name) != n || strncmp(rows[i].name, choice, n))) continue;
    cu_choice c = choice ? choice_of(ctx, choice + n + (choice[n] == ' ')) : (cu_choice){0};
    if (has_words(&c) && rows[i].make != cu_schedule_tma) ir_fail(ctx, TN_EINPUT, "GPU schedule: '%s': words are for tma", choice);
    const cu_tile *r = rows[i].make(ctx, t, k, &c, &why);
    if (r || choice) {
      if (reason) *reason = r ? NULL : why;
      return r;
    }
  }
  if (choice) ir_fail(ctx, TN_EINPUT, "GPU schedule: no step '%.*s'", (int)n, choice);
  if (reason) *reason = why;
  return NULL;
}

static const char *const candidates[] = {
    "tma 128 256 4", "tma 128 256 3", "tma 128 128 6", "tma 128 128 4", "tma 128 192 4", "tma 64 256 4", "tma 64 128 8", "tma 64 128 4", "tma 64 64 8", "tma 192 128 4", "tma 64 32 8",
    "tma 128 256 4 store persist 0 8 cluster 2", "tma 128 256 4 store persist 0 16", "tma 128 256 4 persist 0 8", "tma 128 192 4 store persist 0 8 cluster 2", "tma 64 256 4 store persist 0 8 pingpong cluster 2",
    "tma 64 192 6 store persist 0 8 pingpong", "tma 64 128 8 store persist 0 16 pingpong", "tma 128 128 6 store persist 0 8", "tma 128 128 6 store persist 0 8 cluster 2",
    "tma 128 256 4 store", "tma 128 256 4 store cluster 2", "tma 128 256 4 store persist 0 8 cluster 2 2", "tma 128 256 4 store persist 0 8 cluster 1 2", "tma 128 128 6 store persist 0 8 cluster 2 2", "tma 64 256 4 store persist 0 8 pingpong cluster 2 2", "tma 128 256 4 store persist 0 8 streamk", "tma 128 128 6 store persist 0 8 streamk", "tma 64 128 8 persist 0 8 streamk", "tma 128 128 4 store", "tma 128 128 4 cluster 2", "tma 64 64 8 persist 0 8 pingpong",
    "wgmma 128 256 4", "wgmma 128 128 4", "wgmma 64 256 4", "wgmma 64 128 4", "wgmma 64 64 6",
    "mma 128 128 32 64 32 4", "mma 128 128 64 64 32 3", "mma 128 64 32 32 32 4", "mma 64 128 32 32 32 4", "mma 64 64 32 32 32 4", "mma 64 64 64 32 16 4", "mma 32 64 32 16 32 4", "mma 16 64 64 16 16 4",
    "mma 128 128 128 64 32 3", "mma 64 64 128 32 32 4", "mma 16 64 128 16 16 4", /* of bytes: 128 along k */
    "split 2 tma 128 128 4", "split 4 tma 64 128 4", "split 8 tma 64 64 4", "split 4 mma 64 64 32 32 32 4", "split 8 mma 16 64 64 16 16 4", "split 4 tile 64 64 16 4 4 4", "split 8 tile 16 32 16 1 2 4",
    "tf32 128 128 32 64 32 3", "tf32 64 64 32 32 32 4", "tf32 32 64 32 16 32 4",
    "tile 128 128 16 8 8 4", "tile 128 128 8 8 8 4", "tile 128 64 16 8 4 4", "tile 64 128 16 4 8 4", "tile 64 64 16 4 4 4", "tile 32 64 16 2 4 4", "tile 32 32 16 2 2 4", "tile 16 32 16 1 2 4",
    "attend.group 128 128 2", "attend.group 192 128 2", "attend.group 128 176 2", "attend.group 128 64 4", "attend.group 64 128 3",
    "attend 128 64", "attend 64 64", "attend 128 32", "attend 64 128", "attend 128 128",
    "attend.tf32 128 64", "attend.tf32 64 64", "attend.tf32 128 32", "attend.tf32 64 32",
    "attend.simt 64 64 8", "attend.simt 64 32 8", "attend.simt 64 64 4", "attend.simt 64 32 4", "attend.simt 128 32 8", "attend.simt 32 32 4", "attend.simt 32 64 4", "attend.simt 16 64 4",
    "window 4 8 4 256", "window 4 8 2 128", "window 8 8 2 128", "window 2 8 4 128", "window 4 16 4 256", "window 4 32 1 128", "window 8 32 1 128", "window 4 16 2 128", "window 2 32 2 128",
    "rows 32 8", "rows 32 4", "rows 32", "rows 64", "rows 128", "rows 256", "rows 512", "rows 1024",
    "columns 8 32 1", "columns 32 8 1", "columns 8 64 1", "columns 8 128 1", "columns 8 32 4", "columns 32 8 4", "columns 8 32 16", "columns 32 8 16", "columns 8 32 64", "transpose",
    "threads 128 1", "threads 256 1", "threads 64 1", "threads 128 4", "threads 256 2", "threads 256 4", "threads 512 1", "threads 128 8"};

const char *cu_candidate(int i) { return i < IR_COUNT(candidates) ? candidates[i] : NULL; }
