/* report.c — see report.h. Pictures are SVG inside the page; colours come from the style sheet, so
 * that the page follows a light or a dark desktop. */
#include "autotune/report.h"
#include "autotune/search.h"
#include "autotune/stats.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct row {
  const char *schedule, *origin, *reason, *uid;
  at_status status;
  int stage, n;
  const double *samples;
  double median, predicted, cost;
  int64_t time, seq;
} row;

typedef struct kernel {
  const char *text, *klass, *name, *target, *policy, *codegen;
  int n;
  row *rows; /* in the order they were tried */
  double base, best, predicted; /* default and winner, ns; of the winner */
  const char *schedule;
  int ok, bad[AT_STATUS_COUNT], configs;
  int64_t first, last;
} kernel;

typedef struct page {
  tn_ctx *ctx;
  at_store *store;
  const char *pattern;
  kernel *k;
  int n;
  ir_text t;
} page;

/* ---- gathering ---- */

static bool same(const char *a, const char *b) { return strcmp(a, b) == 0; }

static bool take(void *user, const at_record *r) {
  page *p = user;
  if (p->pattern && !strstr(r->name, p->pattern)) return true;
  int i = 0;
  while (i < p->n && !(same(p->k[i].text, r->kernel) && same(p->k[i].target, r->target) && same(p->k[i].policy, r->policy) && same(p->k[i].codegen, r->codegen))) i++;
  if (i == p->n) {
    kernel k = {.text = ir_strdup(p->ctx, r->kernel), .klass = ir_strdup(p->ctx, r->klass), .name = ir_strdup(p->ctx, r->name)};
    k.target = ir_intern(p->ctx, r->target), k.policy = ir_intern(p->ctx, r->policy), k.codegen = ir_intern(p->ctx, r->codegen);
    k.base = k.best = k.predicted = NAN;
    k.first = k.last = r->time_us;
    IR_PUSH(p->ctx, p->k, p->n, k);
  }
  kernel *k = &p->k[i];
  row x = {ir_intern(p->ctx, r->schedule), ir_intern(p->ctx, r->origin), ir_strdup(p->ctx, r->reason), ir_strdup(p->ctx, r->uid), r->status, r->stage, r->n,
           ir_grow(p->ctx, r->samples, (size_t)r->n, (size_t)r->n + 1, sizeof *r->samples), r->median_ns, r->predicted_ns, r->cost_ns, r->time_us, r->seq};
  IR_PUSH(p->ctx, k->rows, k->n, x);
  if (r->time_us < k->first) k->first = r->time_us;
  if (r->time_us > k->last) k->last = r->time_us;
  return true;
}

static int by_time(const void *a, const void *b) {
  const row *p = a, *q = b;
  if (p->time != q->time) return p->time < q->time ? -1 : 1;
  if (p->seq != q->seq) return p->seq < q->seq ? -1 : 1;
  return strcmp(p->uid, q->uid);
}

static void conclude(page *p, kernel *k) {
  qsort(k->rows, (size_t)k->n, sizeof *k->rows, by_time);
  int most = 0;
  const char *standard = NULL;
  for (int i = 0; i < k->n && !standard; i++)
    if (same(k->rows[i].origin, "default")) standard = k->rows[i].schedule;
  for (int i = 0; i < k->n; i++) {
    const row *r = &k->rows[i];
    if (r->status == AT_OK) k->ok++;
    k->bad[r->status]++;
    bool seen = false;
    for (int j = 0; j < i && !seen; j++) seen = same(k->rows[j].schedule, r->schedule);
    k->configs += !seen;
    if (standard && same(standard, r->schedule) && r->status == AT_OK && r->n >= most) k->base = r->median, most = r->n;
  }
  at_winner w;
  at_key key = {k->text, k->target, k->policy, k->codegen};
  if (!at_store_best(p->store, &key, &w)) return;
  k->best = w.median_ns;
  k->predicted = w.predicted_ns;
  k->schedule = ir_strdup(p->ctx, w.schedule);
  if (standard && same(standard, k->schedule)) k->base = k->best; /* one schedule has one time */
}

static int by_name(const void *a, const void *b) {
  const kernel *p = a, *q = b;
  int c = strcmp(p->name, q->name);
  if (!c) c = strcmp(p->codegen, q->codegen);
  return c ? c : strcmp(p->text, q->text);
}

/* ---- writing ---- */

static void put_html(ir_text *t, const char *s) {
  for (; *s; s++) {
    if (*s == '<') ir_put(t, "&lt;");
    else if (*s == '>') ir_put(t, "&gt;");
    else if (*s == '&') ir_put(t, "&amp;");
    else if (*s == '"') ir_put(t, "&quot;");
    else ir_put_bytes(t, s, 1);
  }
}

static const char *duration(tn_ctx *ctx, double ns) {
  if (isnan(ns)) return "–";
  if (ns < 1e3) return ir_format(ctx, "%.0f ns", ns);
  if (ns < 1e6) return ir_format(ctx, "%.4g µs", ns * 1e-3);
  if (ns < 1e9) return ir_format(ctx, "%.4g ms", ns * 1e-6);
  return ir_format(ctx, "%.4g s", ns * 1e-9);
}

static const char *gain(tn_ctx *ctx, const kernel *k) {
  return k->base > 0 && k->best > 0 ? ir_format(ctx, "%+.1f %%", 100 * (k->base / k->best - 1)) : "–";
}

/* A drawing area of w x h with room for labels, a scale from `low` to `high` on the left. */
typedef struct plot {
  ir_text *t;
  double w, h, x0, x1, y0, y1; /* of the values */
  bool logx, logy;
} plot;

enum { LEFT = 58, RIGHT = 10, TOP = 10, BOTTOM = 34 };

static double scale(double v, double a, double b, bool log) {
  if (log) v = log10(v), a = log10(a), b = log10(b);
  return b > a ? (v - a) / (b - a) : 0.5;
}
static double px(const plot *p, double x) { return LEFT + (p->w - LEFT - RIGHT) * scale(x, p->x0, p->x1, p->logx); }
static double py(const plot *p, double y) { return p->h - BOTTOM - (p->h - TOP - BOTTOM) * scale(y, p->y0, p->y1, p->logy); }

static void plot_begin(plot *p, tn_ctx *ctx, const char *xlabel, bool times_x) {
  ir_text *t = p->t;
  ir_put(t, "<svg viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" role=\"img\">", p->w, p->h, p->w, p->h);
  for (int i = 0; i <= 4; i++) {
    double f = i / 4.0, y = p->logy ? p->y0 * pow(p->y1 / p->y0, f) : p->y0 + (p->y1 - p->y0) * f, at = py(p, y);
    ir_put(t, "<line class=grid x1=%d x2=%.0f y1=%.1f y2=%.1f /><text class=tick x=%d y=%.1f text-anchor=end>%s</text>", LEFT, p->w - RIGHT, at, at, LEFT - 4, at + 4,
           duration(ctx, y));
  }
  for (int i = 0; i <= 4; i++) {
    double f = i / 4.0, x = p->logx ? p->x0 * pow(p->x1 / p->x0, f) : p->x0 + (p->x1 - p->x0) * f;
    if (times_x ? i % 2 : x != floor(x)) continue; /* times need room */
    const char *text = times_x ? duration(ctx, x) : ir_format(ctx, "%.0f", x);
    ir_put(t, "<text class=tick x=%.1f y=%.1f text-anchor=%s>%s</text>", px(p, x), p->h - BOTTOM + 15, i == 4 ? "end" : i ? "middle" : "start", text);
  }
  ir_put(t, "<text class=axis x=%.0f y=%.0f text-anchor=middle>%s</text>", (LEFT + p->w - RIGHT) / 2, p->h - 3, xlabel);
}

static void range(double v, double *lo, double *hi) {
  if (!(v > 0) || isinf(v)) return;
  if (v < *lo) *lo = v;
  if (v > *hi) *hi = v;
}

/* Times of all schedules as they were tried, and the fastest so far. */
static void convergence(page *p, const kernel *k) {
  double lo = INFINITY, hi = 0;
  int n = 0;
  for (int i = 0; i < k->n; i++)
    if (k->rows[i].status == AT_OK) range(k->rows[i].median, &lo, &hi), n++;
  if (n < 2) return;
  plot q = {.t = &p->t, .w = 460, .h = 220, .x0 = 1, .x1 = k->n > 1 ? k->n : 2, .y0 = lo * 0.95, .y1 = fmin(hi, lo * 20) * 1.05, .logy = true};
  ir_put(&p->t, "<figure>");
  plot_begin(&q, p->ctx, "trials, in their order", false);
  if (k->base > 0) ir_put(&p->t, "<line class=base x1=%d x2=%.0f y1=%.1f y2=%.1f />", LEFT, q.w - RIGHT, py(&q, k->base), py(&q, k->base));
  double best = INFINITY, py0 = 0;
  ir_text path = {.ctx = p->ctx};
  for (int i = 0; i < k->n; i++) {
    const row *r = &k->rows[i];
    double x = px(&q, i + 1);
    if (r->status != AT_OK) {
      ir_put(&p->t, "<text class=bad x=%.1f y=%.1f text-anchor=middle>×<title>%s</title></text>", x, q.h - BOTTOM - 2, at_status_name(r->status));
      continue;
    }
    double y = py(&q, fmin(r->median, q.y1));
    ir_put(&p->t, "<circle class=\"dot%s\" cx=%.1f cy=%.1f r=%s><title>%s, %s, %d samples</title></circle>", r->stage == AT_STAGE_FINAL ? " final" : "", x, y,
           r->n >= 15 ? "3" : "2", duration(p->ctx, r->median), r->origin, r->n);
    if (r->median < best && r->n >= 15) {
      best = r->median;
      if (!path.n) ir_put(&path, "M%.1f %.1f", x, y);
      else ir_put(&path, "L%.1f %.1f L%.1f %.1f", x, py0, x, y);
      py0 = y;
    }
  }
  if (path.n) ir_put(&p->t, "<path class=best d=\"%s L%.0f %.1f\" />", path.s, q.w - RIGHT, py0);
  ir_put(&p->t, "</svg><figcaption>Convergence: a dot is a trial (large: 15 samples or more; green: in a final), × a failure, "
                "the line the fastest so far, dashes the default.</figcaption></figure>\n");
}

static void predictions(page *p, const kernel *k) {
  double lo = INFINITY, hi = 0;
  int n = 0;
  for (int i = 0; i < k->n; i++) {
    const row *r = &k->rows[i];
    if (r->status != AT_OK || !(r->predicted > 0)) continue;
    range(r->median, &lo, &hi), range(r->predicted, &lo, &hi), n++;
  }
  if (n < 3) return;
  plot q = {.t = &p->t, .w = 300, .h = 220, .x0 = lo * 0.9, .x1 = hi * 1.1, .y0 = lo * 0.9, .y1 = hi * 1.1, .logx = true, .logy = true};
  ir_put(&p->t, "<figure>");
  plot_begin(&q, p->ctx, "predicted", true);
  ir_put(&p->t, "<line class=base x1=%.1f y1=%.1f x2=%.1f y2=%.1f />", px(&q, q.x0), py(&q, q.y0), px(&q, q.x1), py(&q, q.y1));
  for (int i = 0; i < k->n; i++) {
    const row *r = &k->rows[i];
    if (r->status == AT_OK && r->predicted > 0)
      ir_put(&p->t, "<circle class=dot cx=%.1f cy=%.1f r=2.5><title>predicted %s, took %s</title></circle>", px(&q, r->predicted), py(&q, r->median),
             duration(p->ctx, r->predicted), duration(p->ctx, r->median));
  }
  ir_put(&p->t, "</svg><figcaption>Measured over predicted time: on the dashes the model is right.</figcaption></figure>\n");
}

static int by_median(const void *a, const void *b) {
  const row *p = *(const row *const *)a, *q = *(const row *const *)b;
  return p->median < q->median ? -1 : p->median > q->median;
}

/* Samples of the fastest schedules: each its own line. */
static void spread(page *p, const kernel *k) {
  enum { MOST = 8 };
  const row **best = IR_NEW_ARRAY(p->ctx, const row *, k->n + 1);
  int n = 0;
  for (int i = 0; i < k->n; i++)
    if (k->rows[i].status == AT_OK && k->rows[i].n >= 15) best[n++] = &k->rows[i];
  if (n < 2) return;
  qsort(best, (size_t)n, sizeof *best, by_median);
  if (n > MOST) n = MOST;
  double lo = INFINITY, hi = 0;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < best[i]->n; j++) range(best[i]->samples[j], &lo, &hi);
  double w = 460, top = fmin(hi, lo * 2);
  ir_put(&p->t, "<figure><svg viewBox=\"0 0 %.0f %d\" width=\"%.0f\" height=\"%d\" role=\"img\">", w, 22 * n + 24, w, 22 * n + 24);
  for (int i = 0; i < n; i++) {
    int y = 22 * i + 14;
    ir_put(&p->t, "<text class=tick x=%d y=%d text-anchor=end>%s</text>", LEFT - 4, y + 4, duration(p->ctx, best[i]->median));
    for (int j = 0; j < best[i]->n; j++)
      ir_put(&p->t, "<line class=sample x1=%.1f x2=%.1f y1=%d y2=%d />", LEFT + (w - LEFT - RIGHT) * scale(fmin(best[i]->samples[j], top), lo, top, false),
             LEFT + (w - LEFT - RIGHT) * scale(fmin(best[i]->samples[j], top), lo, top, false), y - 7, y + 7);
  }
  ir_put(&p->t, "<text class=tick x=%d y=%d>%s</text><text class=tick x=%.0f y=%d text-anchor=end>%s%s</text></svg>", LEFT, 22 * n + 18, duration(p->ctx, lo), w - RIGHT,
         22 * n + 18, duration(p->ctx, top), hi > top ? " and more" : "");
  ir_put(&p->t, "<figcaption>Spread: all samples of the fastest trials, a line each.</figcaption></figure>\n");
}

static void failures(page *p, const kernel *k) {
  int bad = k->n - k->ok;
  if (!bad) return;
  ir_put(&p->t, "<details><summary>%d failed</summary><table><tr><th>status<th>reason<th>schedule</tr>\n", bad);
  int shown = 0;
  for (int i = 0; i < k->n && shown < 20; i++) {
    const row *r = &k->rows[i];
    if (r->status == AT_OK) continue;
    shown++;
    ir_put(&p->t, "<tr><td>%s<td>", at_status_name(r->status));
    put_html(&p->t, r->reason);
    ir_put(&p->t, "<td><details><summary>steps</summary><pre>");
    put_html(&p->t, r->schedule);
    ir_put(&p->t, "</pre></details></tr>\n");
  }
  ir_put(&p->t, "</table>%s</details>\n", bad > shown ? "<p>and more</p>" : "");
}

static const char *day(tn_ctx *ctx, int64_t us) {
  time_t s = (time_t)(us / 1000000);
  struct tm tm;
  char text[32] = "";
  if (gmtime_r(&s, &tm)) strftime(text, sizeof text, "%Y-%m-%d %H:%M", &tm);
  return ir_strdup(ctx, text);
}

static void one_kernel(page *p, const kernel *k, int i) {
  ir_text *t = &p->t;
  ir_put(t, "<section id=k%d><h2>", i);
  put_html(t, *k->name ? k->name : "(no name)");
  ir_put(t, "</h2><p>%s, %s; default %s, best %s (%s), predicted %s; %d trials of %d schedules", k->klass, k->policy, duration(p->ctx, k->base),
         duration(p->ctx, k->best), gain(p->ctx, k), duration(p->ctx, k->predicted), k->n, k->configs);
  for (int s = 1; s < AT_STATUS_COUNT; s++)
    if (k->bad[s]) ir_put(t, ", %d %s", k->bad[s], at_status_name((at_status)s));
  ir_put(t, "; %s to %s UTC</p>\n<div class=figures>", day(p->ctx, k->first), day(p->ctx, k->last));
  convergence(p, k);
  predictions(p, k);
  spread(p, k);
  ir_put(t, "</div>\n");
  failures(p, k);
  ir_put(t, "<details><summary>best schedule</summary><pre>");
  put_html(t, k->schedule ? (*k->schedule ? k->schedule : "# as the op wrote it\n") : "# none\n");
  ir_put(t, "</pre></details><details><summary>kernel</summary><pre>");
  put_html(t, k->text);
  ir_put(t, "</pre></details></section>\n");
}

static const char style[] =
    ":root{color-scheme:light dark;--ink:#1c1e21;--soft:#6a7078;--line:#d9dce0;--paper:#fff;--blue:#1f6feb;--red:#c93c37;--green:#2b8a3e}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#9aa2ab;--line:#3a3f46;--paper:#16181b;--blue:#6aa6ff;--red:#ff7b72;--green:#6cc47c}}"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1280px;margin:2em auto;padding:0 1em}"
    "h1{font-size:1.5em}h2{font-size:1.15em;margin:2em 0 .2em}table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}"
    "th,td{text-align:left;padding:.15em .8em .15em 0;border-bottom:1px solid var(--line);vertical-align:top}td.r,th.r{text-align:right;white-space:nowrap}"
    "a{color:var(--blue)}p{color:var(--soft)}pre{font-size:13px;overflow:auto}.figures{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0;max-width:100%}svg{max-width:100%;height:auto}"
    "figcaption{color:var(--soft);font-size:13px;max-width:460px}.grid{stroke:var(--line)}.tick,.axis{font-size:11px;fill:var(--soft)}"
    ".dot{fill:var(--blue);fill-opacity:.55}.dot.final{fill:var(--green);fill-opacity:1}.base{stroke:var(--soft);stroke-dasharray:4 3}"
    ".best{stroke:var(--blue);stroke-width:1.5;fill:none}.bad{fill:var(--red);font-size:13px}.sample{stroke:var(--blue);stroke-opacity:.45}"
    ".bar{fill:var(--blue)}.bar.saved{fill:var(--line)}";

/* The part of a name before the last '/': the model. */
static size_t group_of(const char *name) {
  const char *slash = strrchr(name, '/');
  return slash ? (size_t)(slash - name) : 0;
}

/* Bars of the kernels of one model: the best times, and in grey what the default took more. */
static void shares(page *p, int from, int to) {
  double most = 0;
  for (int i = from; i < to; i++) most = fmax(most, fmax(p->k[i].base > 0 ? p->k[i].base : 0, p->k[i].best > 0 ? p->k[i].best : 0));
  if (!(most > 0) || to - from < 2) return;
  int h = 18 * (to - from) + 6;
  ir_put(&p->t, "<figure><svg viewBox=\"0 0 760 %d\" width=760 height=%d role=\"img\">", h, h);
  for (int i = from; i < to; i++) {
    const kernel *k = &p->k[i];
    int y = 18 * (i - from) + 3;
    double best = k->best > 0 ? 420 * k->best / most : 0, base = k->base > 0 ? 420 * k->base / most : 0;
    const char *name = k->name + (group_of(k->name) ? group_of(k->name) + 1 : 0);
    ir_put(&p->t, "<text class=tick x=196 y=%d text-anchor=end>%.32s</text><rect class=\"bar saved\" x=200 y=%d width=%.1f height=12 /><rect class=bar x=200 y=%d width=%.1f height=12 />"
                  "<text class=tick x=%.1f y=%d>%s</text>", y + 10, name, y, base, y, best, 206 + fmax(best, base), y + 10, duration(p->ctx, k->best));
  }
  ir_put(&p->t, "</svg><figcaption>One call of each kernel: best time; grey: what the default takes more.</figcaption></figure>\n");
}

static void index_table(page *p) {
  ir_text *t = &p->t;
  ir_put(t, "<table><tr><th>kernel<th>class<th class=r>default<th class=r>best<th class=r>gain<th class=r>trials<th class=r>failed<th>code generator</tr>\n");
  for (int i = 0; i < p->n; i++) {
    const kernel *k = &p->k[i];
    ir_put(t, "<tr><td><a href=#k%d>", i);
    put_html(t, *k->name ? k->name : "(no name)");
    ir_put(t, "</a><td>%s<td class=r>%s<td class=r>%s<td class=r>%s<td class=r>%d<td class=r>%d<td>%s</tr>\n", k->klass, duration(p->ctx, k->base),
           duration(p->ctx, k->best), gain(p->ctx, k), k->n, k->n - k->ok, k->codegen);
  }
  ir_put(t, "</table>\n");
}

const char *at_report(tn_ctx *ctx, at_store *store, const char *pattern, const char *title) {
  page *p = IR_NEW(ctx, page);
  *p = (page){.ctx = ctx, .store = store, .pattern = pattern, .t = {.ctx = ctx}};
  at_store_each_trial(store, &(at_filter){0}, take, p);
  int trials = 0, failed = 0;
  double log_gain = 0;
  int gains = 0;
  for (int i = 0; i < p->n; i++) {
    conclude(p, &p->k[i]);
    trials += p->k[i].n, failed += p->k[i].n - p->k[i].ok;
    if (p->k[i].base > 0 && p->k[i].best > 0) log_gain += log(p->k[i].base / p->k[i].best), gains++;
  }
  if (p->n) qsort(p->k, (size_t)p->n, sizeof *p->k, by_name);
  ir_text *t = &p->t;
  ir_put(t, "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>");
  put_html(t, title ? title : "Tuning");
  ir_put(t, "</title><style>%s</style></head><body>\n<h1>", style);
  put_html(t, title ? title : "Tuning");
  ir_put(t, "</h1>\n<p>%d kernel%s, %d trials, %d failed", p->n, p->n == 1 ? "" : "s", trials, failed);
  if (gains) ir_put(t, "; default over best, geometric mean: %.3f", exp(log_gain / gains));
  ir_put(t, "</p>\n<p>Best is what compiles use: a schedule that beat the default in a final, in turn with it. A single trial may look "
            "faster where the machine just was.</p>\n");
  if (!p->n) ir_put(t, "<p>Nothing was tuned yet: <code>tenon tune MODEL</code>.</p>\n");
  else index_table(p);
  for (int from = 0, to; from < p->n; from = to) {
    size_t g = group_of(p->k[from].name);
    for (to = from + 1; to < p->n && g && group_of(p->k[to].name) == g && memcmp(p->k[to].name, p->k[from].name, g) == 0; to++) {}
    if (to - from < 2) continue;
    ir_put(t, "<h2>%.*s</h2>\n", (int)g, p->k[from].name);
    shares(p, from, to);
  }
  for (int i = 0; i < p->n; i++) one_kernel(p, &p->k[i], i);
  ir_put(t, "</body></html>\n");
  return ir_text_str(t);
}
