/* fake_cudnn.c — a cuDNN for tests: graphs of a convolution and steps behind it, run on the host. Heuristics know two engines,
 * of which the second says that it uses tensor cores. Descriptors are lists of attributes, by their numbers in cuDNN's
 * documentation. FAKE_CUDNN=fail: plans do not run. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, BAD = 2000, NOT_SUPPORTED = 3000, EXECUTION_FAILED = 5000 };
enum { POINTWISE = 0, ENGINE = 2, CONFIG = 3, HEURISTICS = 4, PLAN = 5, OP_CONV = 10, OP_POINTWISE = 13, VARIANT = 16, TENSOR = 17 };
enum { MODE_A = 3, FLOAT = 0, BF16 = 9, ADD = 0, RELU = 100 };

typedef struct attribute {
  int name;
  int64_t n;
  union { int64_t i[16]; int e[32]; float f[32]; double d[16]; void *p[16]; unsigned char b[128]; } u;
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

size_t cudnnGetVersion(void) { return 91900; }
void cudnnGetLastErrorString(char *text, size_t n) { if (n) *text = 0; }
int cudnnCreate(void **h) { return *h = malloc(1), OK; }
int cudnnDestroy(void *h) { return free(h), OK; }
int cudnnSetStream(void *h, void *stream) { return (void)stream, h ? OK : BAD; }
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

static float load(const descriptor *t, const void *p, int64_t at) {
  if (find(t, 901)->u.e[0] == FLOAT) return ((const float *)p)[at];
  uint32_t u = (uint32_t)((const uint16_t *)p)[at] << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static void store(const descriptor *t, void *p, int64_t at, float v) {
  uint32_t u;
  memcpy(&u, &v, 4);
  if (find(t, 901)->u.e[0] == FLOAT) ((float *)p)[at] = v;
  else ((uint16_t *)p)[at] = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static int64_t offset(const descriptor *t, const int64_t *index) { /* axes of one element are the same for all */
  int64_t at = 0;
  for (int d = 0; d < 4; d++)
    if (find(t, 902)->u.i[d] > 1) at += index[d] * find(t, 903)->u.i[d];
  return at;
}

typedef struct memory {
  const descriptor *variant;
  struct { const descriptor *t; void *p; } between[8];
  int n;
} memory;

static int64_t room_of(const descriptor *t) {
  int64_t last = 0;
  for (int d = 0; d < 4; d++) last += (find(t, 902)->u.i[d] - 1) * find(t, 903)->u.i[d];
  return last + 1;
}
static void *place(memory *m, const descriptor *t) {
  attribute *ids = find(m->variant, 1000), *at = find(m->variant, 1001);
  for (int64_t i = 0; i < ids->n; i++)
    if (ids->u.i[i] == find(t, 906)->u.i[0]) return at->u.p[i];
  for (int i = 0; i < m->n; i++)
    if (m->between[i].t == t) return m->between[i].p;
  m->between[m->n].t = t;
  return m->between[m->n++].p = calloc((size_t)room_of(t), sizeof(float));
}

static float sum_of(const descriptor *conv, const descriptor *x, const void *px, const descriptor *w, const void *pw, const int64_t *y) {
  float sum = 0;
  const int64_t *xs = find(x, 902)->u.i, *ws = find(w, 902)->u.i;
  for (int64_t c = 0; c < xs[1]; c++)
    for (int64_t r = 0; r < ws[2]; r++)
      for (int64_t s = 0; s < ws[3]; s++) {
        int64_t in[4] = {y[0], c, y[2] * find(conv, 103)->u.i[0] + r * find(conv, 102)->u.i[0] - find(conv, 105)->u.i[0], y[3] * find(conv, 103)->u.i[1] + s * find(conv, 102)->u.i[1] - find(conv, 105)->u.i[1]};
        if (in[2] < 0 || in[3] < 0 || in[2] >= xs[2] || in[3] >= xs[3]) continue;
        sum = fmaf(load(x, px, offset(x, in)), load(w, pw, offset(w, (int64_t[]){y[1], c, r, s})), sum);
      }
  return sum;
}

static void run_op(memory *m, const descriptor *op) {
  int conv = op->type == OP_CONV;
  const descriptor *how = link_of(op, conv ? 702 : 750), *a = link_of(op, conv ? 704 : 751), *b = link_of(op, conv ? 703 : 752), *y = link_of(op, conv ? 705 : 753);
  const void *pa = place(m, a), *pb = b ? place(m, b) : NULL;
  void *py = place(m, y);
  const int64_t *n = find(y, 902)->u.i;
  attribute *top = find(how, 4);
  int64_t i[4];
  for (i[0] = 0; i[0] < n[0]; i[0]++)
    for (i[1] = 0; i[1] < n[1]; i[1]++)
      for (i[2] = 0; i[2] < n[2]; i[2]++)
        for (i[3] = 0; i[3] < n[3]; i[3]++) {
          float v = conv ? sum_of(how, a, pa, b, pb, i) : load(a, pa, offset(a, i));
          if (!conv && find(how, 0)->u.e[0] == ADD) v += load(b, pb, offset(b, i));
          else if (!conv) v = fminf(fmaxf(v, 0), top ? (float)top->u.d[0] : INFINITY);
          store(y, py, offset(y, i), v);
        }
}

int cudnnBackendExecute(void *h, void *p, void *v) {
  const char *fail = getenv("FAKE_CUDNN");
  const descriptor *config = link_of(p, 401), *graph = link_of(config, 300);
  attribute *ops = find(graph, 801);
  memory m = {.variant = v};
  if (!h || !ops || !find(v, 1003) || (fail && strcmp(fail, "fail") == 0)) return EXECUTION_FAILED;
  for (int64_t i = 0; i < ops->n; i++) run_op(&m, ops->u.p[i]);
  for (int i = 0; i < m.n; i++) free(m.between[i].p);
  return OK;
}
