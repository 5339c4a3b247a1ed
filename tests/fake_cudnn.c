/* fake_cudnn.c — a cuDNN for tests: graphs of convolutions, products, reductions and pointwise steps, run on the host operation
 * by operation, in the order of the fake driver's streams; attention as one operation too. Heuristics know two engines, of which
 * the second says that it uses tensor cores. Descriptors are lists of attributes, by their numbers in cuDNN's documentation.
 * FAKE_CUDNN=fail: plans do not run; FAKE_CUDNN=VERSION: cudnnGetVersion's. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, BAD = 2000, NOT_SUPPORTED = 3000, EXECUTION_FAILED = 5000 };
enum { ENGINE = 2, CONFIG = 3, HEURISTICS = 4, PLAN = 5, OP_CONV = 10, OP_POINTWISE = 13, OP_MATMUL = 19, OP_REDUCTION = 22, OP_ATTENTION = 41, OP_BAND = 44 };
enum { MODE_A = 3, FLOAT = 0, HALF = 2, INT32 = 4, REDUCE_ADD = 0, REDUCE_MAX = 3 };
enum { ADD = 0, MUL = 1, DIV = 6, SUB = 9, EXP = 13, LOG = 15, RELU = 100, GREATER = 302, NOT_LESS = 303, INDEX = 501, SELECT = 601 };

typedef struct attribute {
  int name;
  int64_t n;
  union { int64_t i[32]; int e[64]; float f[64]; double d[32]; void *p[32]; unsigned char b[256]; } u;
} attribute;
typedef struct descriptor {
  int type, n;
  int64_t number; /* of an engine */
  attribute all[16];
} descriptor;

static attribute *find(const descriptor *d, int name) {
  for (int i = 0; d && i < d->n; i++)
    if (d->all[i].name == name) return (attribute *)&d->all[i];
  return NULL;
}
static descriptor *link_of(const descriptor *d, int name) {
  attribute *a = find(d, name);
  return a ? a->u.p[0] : NULL;
}
static size_t size_of(int type) { return type == 2 || type == 24 ? 1 : type == 3 || type == 5 || type == 6 || type == 15 || type == 0 ? 8 : 4; }

size_t cudnnGetVersion(void) {
  const char *v = getenv("FAKE_CUDNN");
  return v && atol(v) ? (size_t)atol(v) : 91900;
}
void cudnnGetLastErrorString(char *text, size_t n) { if (n) *text = 0; }
typedef struct handle { /* the stream: a function in its order */
  int (**stream)(void *stream, void (*f)(void *), const void *arg, size_t size);
} handle;
int cudnnCreate(void **h) { return *h = calloc(1, sizeof(handle)), OK; }
int cudnnDestroy(void *h) { return free(h), OK; }
int cudnnSetStream(void *h, void *stream) { return ((handle *)h)->stream = stream, OK; }
int cudnnBackendCreateDescriptor(int type, void **d) {
  descriptor *x = calloc(1, sizeof *x);
  x->type = type;
  return *d = x, OK;
}
int cudnnBackendDestroyDescriptor(void *d) { return free(d), OK; }
int cudnnBackendFinalize(void *p) {
  descriptor *d = p;
  if (d->type != HEURISTICS) return OK;
  attribute *mode = find(d, 200);
  return mode && mode->u.e[0] == MODE_A && link_of(d, 201) ? OK : NOT_SUPPORTED;
}
int cudnnBackendSetAttribute(void *p, int name, int type, int64_t n, const void *values) {
  descriptor *d = p;
  attribute *a = find(d, name);
  if (type == 24) return OK; /* the device's properties */
  if (!a && d->n == 16) return BAD;
  if (!a) a = &d->all[d->n++];
  a->name = name;
  a->n = n;
  if (n < 0 || (size_t)n * size_of(type) > sizeof a->u) return BAD;
  memcpy(&a->u, values, (size_t)n * size_of(type));
  return OK;
}
int cudnnBackendGetAttribute(void *p, int name, int type, int64_t room, int64_t *n, void *values) {
  descriptor *d = p;
  void **links = values;
  (void)type;
  *n = 1;
  if (d->type == HEURISTICS && name == 202) {
    for (int64_t i = 0; i < 2 && i < room; i++) {
      descriptor *c = links[i];
      c->number = i;
      c->n = 1;
      c->all[0] = (attribute){.name = 300, .n = 1};
      c->all[0].u.p[0] = link_of(d, 201);
    }
    return *n = room < 2 ? room : 2, OK;
  }
  if (d->type == CONFIG && name == 300) return ((descriptor *)links[0])->number = d->number, OK;
  if (d->type == CONFIG && name == 302) return *n = 0, OK;
  if (d->type == ENGINE && name == 1301) return *(int64_t *)values = d->number, OK;
  if (d->type == ENGINE && name == 1303) return *n = d->number, *(int *)values = 0, OK;
  if (d->type == ENGINE && name == 1305) return *n = 0, OK;
  if (d->type == PLAN && name == 402) return *(int64_t *)values = 64 * (link_of(d, 401)->number + 1), OK;
  return BAD;
}

/* ---- running ---- */

/* Between operations all is f32. */
static int type_of(const descriptor *t) { return find(t, 907) ? FLOAT : find(t, 901)->u.e[0]; }
static float load(const descriptor *t, const void *p, int64_t at) {
  int type = type_of(t);
  if (type == FLOAT) return ((const float *)p)[at];
  if (type == INT32) return (float)((const int32_t *)p)[at];
  if (type == HALF) return (float)((const _Float16 *)p)[at];
  uint32_t u = (uint32_t)((const uint16_t *)p)[at] << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static void store(const descriptor *t, void *p, int64_t at, float v) {
  int type = type_of(t);
  uint32_t u;
  memcpy(&u, &v, 4);
  if (type == FLOAT) ((float *)p)[at] = v;
  else if (type == HALF) ((_Float16 *)p)[at] = (_Float16)v;
  else ((uint16_t *)p)[at] = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static const int64_t *sizes(const descriptor *t) { return find(t, 902)->u.i; }
static int64_t offset(const descriptor *t, const int64_t *index) { /* axes of one element are the same for all */
  int64_t at = 0;
  for (int d = 0; d < 4; d++)
    if (sizes(t)[d] > 1) at += index[d] * find(t, 903)->u.i[d];
  return at;
}

typedef struct work { /* what a call executes: the caller's descriptors go with it, the plan's stay */
  const descriptor *graph;
  int64_t n, id[16];
  void *at[16];
} work;
typedef struct memory {
  const work *w;
  struct { const descriptor *t; void *p; } between[32];
  int n;
} memory;

static int64_t room_of(const descriptor *t) {
  int64_t last = 0;
  for (int d = 0; d < 4; d++) last += (sizes(t)[d] - 1) * find(t, 903)->u.i[d];
  return last + 1;
}
static void *place(memory *m, const descriptor *t) {
  for (int64_t i = 0; i < m->w->n; i++)
    if (m->w->id[i] == find(t, 906)->u.i[0]) return m->w->at[i];
  for (int i = 0; i < m->n; i++)
    if (m->between[i].t == t) return m->between[i].p;
  if (!find(t, 907)) abort(); /* not in the variant pack */
  m->between[m->n].t = t;
  return m->between[m->n++].p = calloc((size_t)room_of(t), sizeof(float));
}
static float at(memory *m, const descriptor *t, const int64_t *index) { return load(t, place(m, t), offset(t, index)); }

static float conv_sum(memory *m, const descriptor *op, const int64_t *y) {
  const descriptor *conv = link_of(op, 702), *x = link_of(op, 704), *w = link_of(op, 703);
  const void *px = place(m, x), *pw = place(m, w);
  float sum = 0;
  const int64_t *xs = sizes(x), *ws = sizes(w);
  for (int64_t c = 0; c < xs[1]; c++)
    for (int64_t r = 0; r < ws[2]; r++)
      for (int64_t s = 0; s < ws[3]; s++) {
        int64_t in[4] = {y[0], c, y[2] * find(conv, 103)->u.i[0] + r * find(conv, 102)->u.i[0] - find(conv, 105)->u.i[0], y[3] * find(conv, 103)->u.i[1] + s * find(conv, 102)->u.i[1] - find(conv, 105)->u.i[1]};
        if (in[2] < 0 || in[3] < 0 || in[2] >= xs[2] || in[3] >= xs[3]) continue;
        sum = fmaf(load(x, px, offset(x, in)), load(w, pw, offset(w, (int64_t[]){y[1], c, r, s})), sum);
      }
  return sum;
}

/* Heads of b may be those of several of a. */
static float product(memory *m, const descriptor *a, const descriptor *b, const int64_t *y) {
  const void *pa = place(m, a), *pb = place(m, b);
  int64_t head = y[1] / (sizes(a)[1] / sizes(b)[1]);
  float sum = 0;
  for (int64_t k = 0; k < sizes(a)[3]; k++) sum = fmaf(load(a, pa, offset(a, (int64_t[]){y[0], y[1], y[2], k})), load(b, pb, offset(b, (int64_t[]){y[0], head, k, y[3]})), sum);
  return sum;
}

static float reduced(memory *m, const descriptor *op, const int64_t *y) {
  const descriptor *x = link_of(op, 1610);
  int largest = find(link_of(op, 1612), 1600)->u.e[0] == REDUCE_MAX;
  float r = largest ? -INFINITY : 0;
  for (int64_t k = 0; k < sizes(x)[3]; k++) {
    float v = at(m, x, (int64_t[]){y[0], y[1], y[2], k});
    r = !largest ? r + v : v > r ? v : r;
  }
  return r;
}

static float pointwise(memory *m, const descriptor *op, const int64_t *y) {
  const descriptor *how = link_of(op, 750), *second = link_of(op, 752), *pick = link_of(op, 758);
  int mode = find(how, 0)->u.e[0];
  if (mode == INDEX) return (float)y[find(how, 9)->u.i[0]];
  float a = at(m, link_of(op, 751), y), b = second ? at(m, second, y) : 0;
  attribute *top = find(how, 4);
  switch (mode) {
  case ADD: return a + b;
  case MUL: return a * b;
  case DIV: return a / b;
  case SUB: return a - b;
  case EXP: return expf(a);
  case LOG: return logf(a);
  case GREATER: return a > b;
  case NOT_LESS: return a >= b;
  case SELECT: return at(m, pick, y) != 0 ? a : b;
  case RELU: return fminf(fmaxf(a, 0), top ? (float)top->u.d[0] : INFINITY);
  }
  abort();
}

/* A score that a band keeps: rows from the column + 1 - left on, or columns to the row + right. */
static float band(memory *m, const descriptor *op, const int64_t *y) {
  const descriptor *left = link_of(op, 3003), *right = link_of(op, 3004);
  int mode = find(op, 3007)->u.e[0];
  float row = (float)y[2] + (right ? at(m, right, y) : 0), column = (float)y[3] + (left ? at(m, left, y) : 0);
  int seen = left ? column > row : row >= column;
  if (mode != (left ? GREATER : NOT_LESS)) abort();
  return at(m, link_of(op, seen ? 3000 : 3005), y);
}

static void attends(memory *m, const descriptor *op);

static void run_op(memory *m, const descriptor *op) {
  if (op->type == OP_ATTENTION) {
    attends(m, op);
    return;
  }
  static const int results[64] = {[OP_CONV] = 705, [OP_POINTWISE] = 753, [OP_MATMUL] = 1522, [OP_REDUCTION] = 1611};
  const descriptor *y = link_of(op, results[op->type]);
  void *p = place(m, y);
  const int64_t *n = sizes(y);
  int64_t i[4];
  for (i[0] = 0; i[0] < n[0]; i[0]++)
    for (i[1] = 0; i[1] < n[1]; i[1]++)
      for (i[2] = 0; i[2] < n[2]; i[2]++)
        for (i[3] = 0; i[3] < n[3]; i[3]++)
          store(y, p, offset(y, i), op->type == OP_CONV ? conv_sum(m, op, i) : op->type == OP_MATMUL ? product(m, link_of(op, 1520), link_of(op, 1521), i) : op->type == OP_REDUCTION ? reduced(m, op, i) : pointwise(m, op, i));
}

/* The score of a query and a key; the mask is a graph of bands from tensor 2812 to tensor 2813. */
static float score(memory *m, const descriptor *op, const int64_t *i) {
  const descriptor *q = link_of(op, 2800), *k = link_of(op, 2801), *mask = link_of(op, 2811);
  const void *pq = place(m, q), *pk = place(m, k);
  int64_t head = i[1] / (sizes(q)[1] / sizes(k)[1]), id = mask ? find(op, 2812)->u.i[0] : 0;
  float s = 0;
  for (int64_t d = 0; d < sizes(q)[3]; d++) s = fmaf(load(q, pq, offset(q, (int64_t[]){i[0], i[1], i[2], d})), load(k, pk, offset(k, (int64_t[]){i[0], head, i[3], d})), s);
  s *= at(m, link_of(op, 2805), i);
  for (int64_t b = 0; mask && b < find(mask, 801)->n; b++) { /* each takes what the one before gives */
    const descriptor *band_op = find(mask, 801)->u.p[b], *from = link_of(band_op, 3000);
    if (find(from, 906)->u.i[0] != id) abort();
    store(from, place(m, from), offset(from, i), s);
    s = band(m, band_op, i);
    id = find(link_of(band_op, 3006), 906)->u.i[0];
  }
  if (mask && id != find(op, 2813)->u.i[0]) abort();
  return s;
}

static void attends(memory *m, const descriptor *op) {
  const descriptor *k = link_of(op, 2801), *v = link_of(op, 2802), *o = link_of(op, 2803);
  const int64_t *n = sizes(o), keys = sizes(k)[2];
  float *s = calloc((size_t)keys, sizeof *s);
  int64_t i[4];
  for (i[0] = 0; i[0] < n[0]; i[0]++)
    for (i[1] = 0; i[1] < n[1]; i[1]++)
      for (i[2] = 0; i[2] < n[2]; i[2]++) {
        float top = -INFINITY, sum = 0;
        for (i[3] = 0; i[3] < keys; i[3]++) top = fmaxf(top, s[i[3]] = score(m, op, i));
        for (int64_t j = 0; j < keys; j++) sum += s[j] = expf(s[j] - top);
        for (i[3] = 0; i[3] < n[3]; i[3]++) {
          float total = 0;
          for (int64_t j = 0; j < keys; j++) total = fmaf(s[j], at(m, v, (int64_t[]){i[0], i[1] / (n[1] / sizes(v)[1]), j, i[3]}), total);
          store(o, place(m, o), offset(o, i), total / sum);
        }
      }
  free(s);
}

static void run(void *arg) {
  const work *w = arg;
  const attribute *ops = find(w->graph, 801);
  memory m = {.w = w};
  for (int64_t i = 0; i < ops->n; i++) run_op(&m, ops->u.p[i]);
  for (int i = 0; i < m.n; i++) free(m.between[i].p);
}

int cudnnBackendExecute(void *h, void *p, void *v) {
  const char *fail = getenv("FAKE_CUDNN");
  const attribute *ids = find(v, 1000), *pointers = find(v, 1001);
  work w = {.graph = link_of(link_of(p, 401), 300)};
  if (!h || !find(w.graph, 801) || !find(v, 1003) || !ids || !pointers || ids->n != pointers->n || ids->n > 16 || (fail && strcmp(fail, "fail") == 0)) return EXECUTION_FAILED;
  w.n = ids->n;
  memcpy(w.id, ids->u.i, (size_t)w.n * sizeof *w.id);
  memcpy(w.at, pointers->u.p, (size_t)w.n * sizeof *w.at);
  handle *x = h;
  return x->stream ? (*x->stream)(x->stream, run, &w, sizeof w) : (run(&w), OK);
}
