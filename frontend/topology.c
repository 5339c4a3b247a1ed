/* topology.c — see topology.h. */
#include "frontend/topology.h"
#include <string.h>
#include <strings.h>

enum { CONV_COLUMNS = 8, MAX_COLUMNS = 64, MAX_COPIES = 1 << 16 };

typedef struct cell {
  const char *s;
  size_t n;
} cell;

typedef enum column { IGNORED, COL_H, COL_W, COL_R, COL_S, COL_C, COL_K, COL_STRIDE, COL_STRIDE_W, COL_BATCH, COL_GROUPS, COL_SPARSITY, COL_M, COL_N, COL_KK, COLUMNS } column;
static const char *const column_name[COLUMNS] = {
    "ignored", "IFMAP height", "IFMAP width", "filter height", "filter width", "channels", "filters", "stride", "stride width", "batch", "groups", "sparsity", "M", "N", "K",
};

typedef struct reader {
  tn_ctx *ctx;
  const char *path, *p, *end;
  int line;
  char separator;
  fe_topology *out;
  column of[MAX_COLUMNS]; /* what each column holds */
  int ncells;
  cell cells[MAX_COLUMNS];
} reader;

static void IR_NORETURN bad(reader *r, const char *reason) { ir_fail(r->ctx, TN_EINPUT, "%s:%d: %s", r->path, r->line, reason); }
static void IR_NORETURN bad_cell(reader *r, column c, const cell *v, const char *reason) {
  ir_fail(r->ctx, TN_EINPUT, "%s:%d: column '%s': '%s' %s", r->path, r->line, column_name[c], fe_show(r->ctx, v->s, v->n), reason);
}

/* ---- lines and cells ---- */

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f'; }

static cell trimmed(const char *s, const char *end) {
  while (s < end && blank(*s)) s++;
  while (end > s && blank(end[-1])) end--;
  if (end - s >= 2 && *s == '"' && end[-1] == '"') s++, end--;
  return (cell){s, (size_t)(end - s)};
}

/* Takes the next line apart; false at the end of the file. Empty cells at its end are dropped. */
static bool next_line(reader *r) {
  if (r->p == r->end) return false;
  const char *stop = r->p;
  while (stop < r->end && *stop != '\n') stop++;
  const char *s = r->p, *end = memchr(s, '#', (size_t)(stop - s));
  if (!end) end = stop;
  r->p = stop < r->end ? stop + 1 : stop;
  r->line++;
  r->ncells = 0;
  if (!r->separator) r->separator = !memchr(s, ',', (size_t)(end - s)) && memchr(s, '\t', (size_t)(end - s)) ? '\t' : ',';
  int n = 0;
  for (bool more = true; more;) {
    const char *from = s;
    bool quoted = false;
    for (; s < end && (quoted || *s != r->separator); s++) quoted ^= *s == '"';
    if (quoted) bad(r, "a quote does not end");
    cell c = trimmed(from, s);
    if (c.n && n >= MAX_COLUMNS) bad(r, "more than 64 columns");
    if (n < MAX_COLUMNS) r->cells[n] = c;
    n++;
    if (c.n) r->ncells = n;
    more = s < end;
    s += more;
  }
  return true;
}

static bool is(const cell *c, const char *s) { return c->n == strlen(s) && strncasecmp(c->s, s, c->n) == 0; }
static bool contains(const cell *c, const char *s) {
  size_t n = strlen(s);
  for (size_t i = 0; i + n <= c->n; i++)
    if (strncasecmp(c->s + i, s, n) == 0) return true;
  return false;
}
static bool is_number(const cell *c) {
  size_t i = c->n && (*c->s == '-' || *c->s == '+');
  if (i == c->n) return false;
  for (; i < c->n; i++)
    if (c->s[i] < '0' || c->s[i] > '9') return false;
  return true;
}

static int64_t number(reader *r, column c, const cell *v, int64_t most) {
  if (!v->n) ir_fail(r->ctx, TN_EINPUT, "%s:%d: column '%s' is missing", r->path, r->line, column_name[c]);
  if (!is_number(v)) bad_cell(r, c, v, "is not a whole number");
  if (*v->s == '-') bad_cell(r, c, v, "is negative");
  int64_t x = 0;
  for (size_t i = *v->s == '+'; i < v->n; i++) {
    x = 10 * x + (v->s[i] - '0');
    if (x > most) bad_cell(r, c, v, ir_format(r->ctx, "is more than %lld", (long long)most));
  }
  if (x == 0) bad_cell(r, c, v, "must be 1 or more");
  return x;
}

/* ---- the heading ---- */

static column later_column(const cell *c) {
  static const struct {
    const char *part;
    column is;
  } known[] = {{"stride", COL_STRIDE_W}, {"batch", COL_BATCH}, {"group", COL_GROUPS}, {"spars", COL_SPARSITY}};
  for (int i = 0; i < IR_COUNT(known); i++)
    if (contains(c, known[i].part)) return known[i].is;
  return IGNORED;
}

static void take(reader *r, int i, column c) {
  for (int k = 0; k < i; k++)
    if (c != IGNORED && r->of[k] == c) ir_fail(r->ctx, TN_EINPUT, "%s:%d: two columns for '%s'", r->path, r->line, column_name[c]);
  r->of[i] = c;
}

/* What the columns hold. False when the line is no heading but a layer. */
static bool heading(reader *r) {
  const cell *c = r->cells;
  static const char *const mnk[] = {"M", "N", "K"};
  unsigned found = 0;
  for (int i = 0; i < r->ncells; i++)
    for (int k = 0; k < 3; k++)
      if (i > 0 && is(&c[i], mnk[k])) found |= 1u << k;
  r->out->gemm = found == 7;
  bool data = r->ncells > 1 && is_number(&c[1]);
  for (int i = 1; i < MAX_COLUMNS; i++) {
    column k = IGNORED;
    if (r->out->gemm && i < r->ncells)
      for (int a = 0; a < 3; a++)
        if (is(&c[i], mnk[a])) k = (column)(COL_M + a);
    if (!r->out->gemm && i < CONV_COLUMNS) k = (column)i;
    else if (k == IGNORED && !data && i < r->ncells) k = later_column(&c[i]);
    if (r->out->gemm && k == COL_STRIDE_W) k = IGNORED;
    take(r, i, k);
  }
  if (!data && !r->out->gemm && r->ncells < CONV_COLUMNS)
    ir_fail(r->ctx, TN_EINPUT, "%s:%d: a heading of %d columns: neither 'Layer, M, N, K' nor the eight of a convolution", r->path, r->line, r->ncells);
  return !data;
}

/* ---- layers ---- */

static void sparsity(reader *r, const cell *v, fe_topology_layer *l) {
  const char *colon = memchr(v->s, ':', v->n);
  if (!colon) bad_cell(r, COL_SPARSITY, v, "is not N:M");
  cell n = trimmed(v->s, colon), m = trimmed(colon + 1, v->s + v->n);
  l->sparse_n = (int)number(r, COL_SPARSITY, &n, 1 << 20), l->sparse_m = (int)number(r, COL_SPARSITY, &m, 1 << 20);
  if (l->sparse_n > l->sparse_m) bad_cell(r, COL_SPARSITY, v, "is more than all");
}

/* ceil((size - window + stride) / stride): SCALE-Sim counts a last window that is not whole. */
static int64_t windows(int64_t size, int64_t window, int64_t stride) { return (size - window + stride + stride - 1) / stride; }

static bool product(int64_t *x, int64_t y, int64_t most) { return !__builtin_mul_overflow(*x, y, x) && *x <= most; }

static void conv_product(reader *r, fe_topology_layer *l) {
  fe_conv_dims *d = &l->conv;
  if (d->r > d->h) bad(r, "the filter is higher than the input");
  if (d->s > d->w) bad(r, "the filter is wider than the input");
  if (memmem(l->name, strlen(l->name), "DP", 2)) {
    if (l->groups > 1) bad(r, "a depthwise layer (\"DP\" in its name) has no groups");
    if (d->c > MAX_COPIES) bad(r, "a depthwise layer (\"DP\" in its name) of more than 65536 channels");
    l->copies = d->c, d->c = 1;
  }
  if (d->c % l->groups || d->k % l->groups) bad(r, "channels and filters are no multiples of the groups");
  l->M = d->batch, l->N = d->k / l->groups, l->K = d->c / l->groups;
  if (!product(&l->M, windows(d->h, d->r, d->stride_h), FE_TOPOLOGY_MOST) || !product(&l->M, windows(d->w, d->s, d->stride_w), FE_TOPOLOGY_MOST) ||
      !product(&l->K, d->r, FE_TOPOLOGY_MOST) || !product(&l->K, d->s, FE_TOPOLOGY_MOST))
    bad(r, "too large: output pixels, or filter height * width * channels, are more than 2147483647");
}

static void layer(reader *r) {
  fe_topology_layer l = {.name = ir_strndup(r->ctx, r->cells[0].s, r->cells[0].n), .line = r->line, .groups = 1, .sparse_n = 1, .sparse_m = 1};
  int64_t v[COLUMNS] = {[COL_BATCH] = 1, [COL_GROUPS] = 1};
  for (int i = 1; i < MAX_COLUMNS; i++) {
    column k = r->of[i];
    cell none = {"", 0}, c = i < r->ncells ? r->cells[i] : none;
    if (k == IGNORED || (!c.n && (k == COL_STRIDE_W || k == COL_BATCH || k == COL_GROUPS || k == COL_SPARSITY))) continue;
    if (k == COL_SPARSITY) sparsity(r, &c, &l);
    else v[k] = number(r, k, &c, FE_TOPOLOGY_MOST);
  }
  l.groups = v[COL_GROUPS];
  if (r->out->gemm) {
    l.M = v[COL_M], l.N = v[COL_N], l.K = v[COL_KK];
    if (!product(&l.M, v[COL_BATCH], FE_TOPOLOGY_MOST)) bad(r, "M * batch is more than 2147483647");
  } else {
    l.conv = (fe_conv_dims){v[COL_H], v[COL_W], v[COL_R], v[COL_S], v[COL_C], v[COL_K], v[COL_STRIDE], v[COL_STRIDE_W] ? v[COL_STRIDE_W] : v[COL_STRIDE], v[COL_BATCH]};
    conv_product(r, &l);
  }
  int64_t macs = l.M;
  if (!product(&macs, l.N, FE_TOPOLOGY_MACS) || !product(&macs, l.K, FE_TOPOLOGY_MACS) || !product(&macs, l.groups, FE_TOPOLOGY_MACS) ||
      !product(&macs, l.copies ? l.copies : 1, FE_TOPOLOGY_MACS))
    bad(r, "too large: more than 2^56 multiply-adds");
  IR_PUSH(r->ctx, r->out->layers, r->out->n, l);
}

fe_topology *fe_topology_parse(tn_ctx *ctx, const char *bytes, size_t n, const char *path) {
  reader *r = IR_NEW(ctx, reader);
  *r = (reader){.ctx = ctx, .path = path, .p = bytes, .end = bytes + n, .out = IR_NEW(ctx, fe_topology)};
  r->out->path = path;
  if (n >= 3 && memcmp(bytes, "\xef\xbb\xbf", 3) == 0) r->p += 3;
  if (memchr(bytes, 0, n)) ir_fail(ctx, TN_EINPUT, "%s: not a text: it holds a zero byte", path);
  bool headed = false;
  while (next_line(r)) {
    if (!r->ncells) {
      if (!headed) r->separator = 0;
      continue;
    }
    if (!headed) {
      headed = true;
      if (heading(r)) continue;
    }
    if (r->ncells > 1) layer(r); /* else a title */
  }
  if (!r->out->n) ir_fail(ctx, TN_EINPUT, "%s: there are no layers", path);
  return r->out;
}

fe_topology *fe_topology_load(tn_ctx *ctx, const char *path) {
  const fe_map *m = fe_map_file(ctx, path);
  return fe_topology_parse(ctx, m->data, m->size, path);
}

const char *fe_topology_name(tn_ctx *ctx, const fe_topology_layer *l, int64_t i) {
  return l->copies ? ir_format(ctx, "%sChannel_%lld", l->name, (long long)i) : l->name;
}
