/* profile.c — see profile.h. */
#include "runtime/profile.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

double rt_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

rt_profile *rt_profile_new(tn_ctx *ctx) {
  rt_profile *p = IR_NEW(ctx, rt_profile);
  p->ctx = ctx, p->zero = rt_now();
  return p;
}

void rt_profile_add(rt_profile *p, rt_span s) {
  s.start -= p->zero, s.end -= p->zero;
  IR_PUSH(p->ctx, p->spans, p->nspans, s);
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

int rt_profile_rows(tn_ctx *ctx, const rt_profile *p, rt_profile_row **rows) {
  int n = 0;
  for (int i = 0; i < p->nspans; i++)
    if (p->spans[i].worker < 0 && p->spans[i].call >= n) n = p->spans[i].call + 1;
  rt_profile_row *r = IR_NEW_ARRAY(ctx, rt_profile_row, n + 1);
  int *counts = IR_NEW_ARRAY(ctx, int, n + 1);
  double *times = IR_NEW_ARRAY(ctx, double, ((size_t)n + 1) * ((size_t)p->runs + 1));
  for (int i = 0; i < p->nspans; i++) {
    const rt_span *s = &p->spans[i];
    if (s->worker >= 0 || counts[s->call] >= p->runs) continue;
    r[s->call].name = s->name, r[s->call].kernel = s->kernel, r[s->call].tasks = s->tasks;
    times[(size_t)s->call * (size_t)p->runs + (size_t)counts[s->call]++] = s->end - s->start;
  }
  for (int i = 0; i < n; i++) {
    double *t = times + (size_t)i * (size_t)p->runs;
    int c = counts[i];
    if (c == 0) continue;
    qsort(t, (size_t)c, sizeof *t, by_value);
    r[i].min = t[0], r[i].median = c % 2 ? t[c / 2] : 0.5 * (t[c / 2 - 1] + t[c / 2]);
  }
  *rows = r;
  return n;
}

static int by_median(const void *a, const void *b) {
  double x = ((const rt_profile_row *)a)->median, y = ((const rt_profile_row *)b)->median;
  return x > y ? -1 : x < y;
}

const char *rt_profile_table(tn_ctx *ctx, const rt_profile *p, int most) {
  rt_profile_row *rows;
  int n = rt_profile_rows(ctx, p, &rows);
  double total = 0;
  for (int i = 0; i < n; i++) total += rows[i].median;
  qsort(rows, (size_t)n, sizeof *rows, by_median);
  ir_text t = {.ctx = ctx};
  ir_put(&t, "%10s %10s %6s %6s  %s\n", "median ms", "min ms", "%", "tasks", "call");
  for (int i = 0; i < n && (most == 0 || i < most); i++)
    ir_put(&t, "%10.4f %10.4f %6.1f %6d  %s\n", 1e3 * rows[i].median, 1e3 * rows[i].min,
           total > 0 ? 100 * rows[i].median / total : 0, rows[i].tasks, rows[i].name ? rows[i].name : rows[i].kernel);
  ir_put(&t, "%10.4f %10s %6s %6s  sum of %d calls, %d runs\n", 1e3 * total, "", "", "", n, p->runs);
  return ir_text_str(&t);
}

/* A JSON string; bytes that are not ASCII pass (names are UTF-8, or become so as Latin-1 escapes). */
static void put_json(ir_text *t, const char *s) {
  ir_put(t, "\"");
  for (; *s; s++) {
    unsigned char c = (unsigned char)*s;
    if (c == '"' || c == '\\') ir_put(t, "\\%c", c);
    else if (c < 32 || c > 126) ir_put(t, "\\u%04x", c);
    else ir_put(t, "%c", c);
  }
  ir_put(t, "\"");
}

const char *rt_profile_trace(tn_ctx *ctx, const rt_profile *p, const char *model) {
  ir_text t = {.ctx = ctx};
  int workers = 1;
  for (int i = 0; i < p->nspans; i++)
    if (p->spans[i].worker >= workers) workers = p->spans[i].worker + 1;
  ir_put(&t, "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n");
  ir_put(&t, "{\"ph\":\"M\",\"pid\":1,\"name\":\"process_name\",\"args\":{\"name\":");
  put_json(&t, model ? model : "model");
  ir_put(&t, "}}");
  for (int w = -1; w < workers; w++) {
    ir_put(&t, ",\n{\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":", w + 1);
    if (w < 0) ir_put(&t, "\"calls\"}}");
    else ir_put(&t, "\"worker %d\"}}", w);
  }
  for (int i = 0; i < p->nspans; i++) {
    const rt_span *s = &p->spans[i];
    ir_put(&t, ",\n{\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f,\"name\":", s->worker + 1, 1e6 * s->start,
           1e6 * (s->end - s->start));
    put_json(&t, s->name ? s->name : s->kernel);
    ir_put(&t, ",\"args\":{\"kernel\":");
    put_json(&t, s->kernel ? s->kernel : "");
    ir_put(&t, ",\"run\":%d,\"tasks\":%d}}", s->run, s->tasks);
  }
  ir_put(&t, "\n]}\n");
  return ir_text_str(&t);
}
