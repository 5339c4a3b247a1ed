/* Random graphs through the C API, from several threads with contexts of their own, against plain
 * loops in double; afterwards the memory of the process must be what it was.
 *
 *   run_api_stress GRAPHS THREADS [SEED]
 *
 * Each graph is generated as a list of steps, which is then built through the API and evaluated
 * here. A module is run, a parameter of it is changed, and it is run again. Exit status 0: all right. */
#include "frontend/tenon.h"
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_STEPS = 16, MAX_ELEMENTS = 768, RANK = 4 };

typedef enum kind {
  INPUT, PARAM, ADD, SUB, MUL, DIV, RELU, TANH, SIGMOID, GELU, MATMUL, SOFTMAX, RESHAPE, TRANSPOSE, CONCAT, SLICE,
  MEAN, SUM, DENSE, NORM, CONV, POOL, SPLIT, KINDS
} kind;
static const char *const kind_names[] = {"input", "param", "add", "sub", "mul", "div", "relu", "tanh", "sigmoid", "gelu", "matmul", "softmax",
  "reshape", "transpose", "concat", "slice", "mean", "sum", "dense", "norm", "conv", "pool", "split"};

typedef struct step {
  kind kind;
  int a, b, c;          /* operands: numbers of steps */
  int axis, k, perm[RANK];
  int64_t from, to;
  int rank;
  int64_t dims[RANK];
  double v[MAX_ELEMENTS]; /* what it should be */
  float data[MAX_ELEMENTS], got[MAX_ELEMENTS];
  tn_tensor *t;
} step;

typedef struct test {
  uint64_t random;
  int n;
  step s[MAX_STEPS];
} test;

static uint64_t next(test *t) {
  uint64_t z = t->random += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}
static int below(test *t, int n) { return (int)(next(t) % (uint64_t)n); }

static int64_t count(const step *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++) n *= s->dims[i];
  return n;
}

/* Row-major index of element i, and back. */
static void unravel(const step *s, int64_t i, int64_t *x) {
  for (int k = s->rank - 1; k >= 0; k--) x[k] = i % s->dims[k], i /= s->dims[k];
}
static int64_t ravel(const step *s, const int64_t *x) {
  int64_t i = 0;
  for (int k = 0; k < s->rank; k++) i = i * s->dims[k] + x[k];
  return i;
}

/* ---- generating ---- */

static int shaped(test *t, kind k, int rank, const int64_t *dims) {
  step *s = &t->s[t->n];
  memset(s, 0, sizeof *s);
  s->kind = k;
  s->rank = rank;
  memcpy(s->dims, dims, sizeof *dims * (size_t)rank);
  return t->n++;
}

static int like(test *t, kind k, int a) {
  int i = shaped(t, k, t->s[a].rank, t->s[a].dims);
  t->s[i].a = a;
  return i;
}

static int leaf(test *t, kind k, int rank, const int64_t *dims) {
  int i = shaped(t, k, rank, dims);
  int64_t n = count(&t->s[i]);
  for (int64_t e = 0; e < n; e++) t->s[i].data[e] = (float)((double)(next(t) >> 40) / (1 << 23) - 1);
  return i;
}

static int param(test *t, int rank, const int64_t *dims) { return leaf(t, PARAM, rank, dims); }

static void reshape_to(test *t, int a, int rank) {
  int64_t left = count(&t->s[a]), dims[RANK];
  for (int i = 0; i < rank; i++) {
    int64_t d = 1;
    if (i == rank - 1) d = left;
    else
      for (int tries = 0; tries < 6; tries++) {
        int64_t c = 1 + below(t, 8);
        if (left % c == 0) d = c;
      }
    dims[i] = d;
    left /= d;
  }
  int i = shaped(t, RESHAPE, rank, dims);
  t->s[i].a = a;
}

/* One random step over those that exist; nothing when it does not fit. */
static void add_step(test *t) {
  int a;
  do a = below(t, t->n);
  while (t->s[a].kind == PARAM);
  const step *x = &t->s[a];
  kind k = (kind)(ADD + below(t, KINDS - ADD));
  int64_t dims[RANK];
  memcpy(dims, x->dims, sizeof dims);
  int axis = x->rank ? below(t, x->rank) : 0, i, w, bias;
  switch (k) {
  case ADD: case SUB: case MUL: case DIV: { /* with a tensor of the same shape, or a broadcast parameter */
    int b = -1;
    for (int tries = 0; tries < 4 && b < 0; tries++) {
      int c = below(t, t->n);
      if (t->s[c].rank == x->rank && memcmp(t->s[c].dims, x->dims, sizeof *dims * (size_t)x->rank) == 0) b = c;
    }
    if (b < 0) b = param(t, 1, (int64_t[]){x->rank ? x->dims[x->rank - 1] : 1});
    if (x->rank == 0) return;
    i = like(t, k, a);
    t->s[i].b = b;
    break;
  }
  case RELU: case TANH: case SIGMOID: case GELU: like(t, k, a); break;
  case MATMUL: case DENSE: {
    if (x->rank < 2) return;
    int64_t units = 1 + below(t, 9), in = dims[x->rank - 1];
    dims[x->rank - 1] = units;
    if (count(x) / in * units > MAX_ELEMENTS || in * units > MAX_ELEMENTS) return;
    w = k == MATMUL ? param(t, 2, (int64_t[]){in, units}) : param(t, 2, (int64_t[]){units, in});
    bias = k == DENSE ? param(t, 1, &units) : 0;
    i = shaped(t, k, t->s[a].rank, dims);
    t->s[i].a = a, t->s[i].b = w, t->s[i].c = bias;
    break;
  }
  case SOFTMAX:
    if (!x->rank) return;
    i = like(t, k, a);
    t->s[i].axis = axis;
    break;
  case NORM:
    if (!x->rank || dims[x->rank - 1] < 2) return;
    w = param(t, 1, &dims[x->rank - 1]);
    bias = param(t, 1, &dims[x->rank - 1]);
    i = like(t, k, a);
    t->s[i].b = w, t->s[i].c = bias;
    break;
  case RESHAPE: reshape_to(t, a, 1 + below(t, RANK)); break;
  case TRANSPOSE:
    if (x->rank < 2) return;
    i = shaped(t, k, x->rank, dims);
    t->s[i].a = a;
    for (int r = 0; r < x->rank; r++) t->s[i].perm[r] = r;
    for (int r = x->rank - 1; r > 0; r--) {
      int o = below(t, r + 1), p = t->s[i].perm[r];
      t->s[i].perm[r] = t->s[i].perm[o];
      t->s[i].perm[o] = p;
    }
    for (int r = 0; r < x->rank; r++) t->s[i].dims[r] = dims[t->s[i].perm[r]];
    break;
  case CONCAT:
    if (!x->rank || 2 * count(x) > MAX_ELEMENTS) return;
    dims[axis] *= 2;
    i = shaped(t, k, x->rank, dims);
    t->s[i].a = a, t->s[i].axis = axis, t->s[i].b = a;
    for (int c = 0; c < i; c++)
      if (t->s[c].rank == x->rank && memcmp(t->s[c].dims, x->dims, sizeof *dims * (size_t)x->rank) == 0) t->s[i].b = c;
    break;
  case SLICE:
    if (!x->rank || dims[axis] < 2) return;
    i = shaped(t, k, x->rank, dims);
    t->s[i].a = a, t->s[i].axis = axis;
    t->s[i].from = below(t, (int)dims[axis] - 1);
    t->s[i].to = t->s[i].from + 1 + below(t, (int)(dims[axis] - t->s[i].from));
    t->s[i].dims[axis] = t->s[i].to - t->s[i].from;
    break;
  case SPLIT: /* the second half */
    if (!x->rank || dims[axis] % 2) return;
    dims[axis] /= 2;
    i = shaped(t, k, x->rank, dims);
    t->s[i].a = a, t->s[i].axis = axis;
    break;
  case MEAN: case SUM:
    if (!x->rank) return;
    dims[axis] = 1;
    i = shaped(t, k, x->rank, dims);
    t->s[i].a = a, t->s[i].axis = axis;
    break;
  case CONV: case POOL: {
    if (x->rank != 4) {
      reshape_to(t, a, 4);
      return;
    }
    int64_t out = 1 + below(t, 6);
    int size = 1 + below(t, 3), pad = size / 2;
    if (dims[1] * out * size * size > MAX_ELEMENTS || dims[0] * out * (dims[2] + 2) * (dims[3] + 2) > MAX_ELEMENTS) return;
    if (k == POOL) out = dims[1];
    dims[1] = out;
    dims[2] += 2 * pad - size + 1;
    dims[3] += 2 * pad - size + 1;
    if (k == CONV) {
      w = param(t, 4, (int64_t[]){out, t->s[a].dims[1], size, size});
      bias = param(t, 1, &out);
    } else w = bias = 0;
    i = shaped(t, k, 4, dims);
    t->s[i].a = a, t->s[i].b = w, t->s[i].c = bias, t->s[i].k = size;
    break;
  }
  default: break;
  }
}

static void generate(test *t, uint64_t seed) {
  t->random = seed * 0x2545f4914f6cdd1du + 77;
  t->n = 0;
  int inputs = 1 + below(t, 2);
  for (int i = 0; i < inputs; i++) {
    int64_t dims[RANK];
    int rank = below(t, 2) ? RANK : 1 + below(t, RANK);
    for (int r = 0; r < rank; r++) dims[r] = 1 + below(t, 5);
    leaf(t, INPUT, rank, dims);
  }
  int wanted = 4 + below(t, MAX_STEPS - 8);
  for (int tries = 0; t->n < wanted && tries < 60; tries++) add_step(t);
  if (t->n == inputs) like(t, TANH, 0);
}

/* ---- the reference ---- */

static double at(const step *s, const int64_t *x, int rank) { /* broadcast: aligned right */
  int64_t i = 0;
  for (int k = 0; k < s->rank; k++) i = i * s->dims[k] + (s->dims[k] == 1 ? 0 : x[rank - s->rank + k]);
  return s->v[i];
}

static double over_axis(const step *s, const step *x, const int64_t *p, bool mean) {
  int64_t q[RANK];
  double sum = 0;
  memcpy(q, p, sizeof q);
  for (q[s->axis] = 0; q[s->axis] < x->dims[s->axis]; q[s->axis]++) sum += x->v[ravel(x, q)];
  return mean ? sum / (double)x->dims[s->axis] : sum;
}

static double element(const test *t, const step *s, const int64_t *p, int64_t i) {
  const step *x = &t->s[s->a], *b = &t->s[s->b], *c = &t->s[s->c];
  int64_t q[RANK];
  int last = s->rank - 1;
  double v = 0;
  memcpy(q, p, sizeof q);
  switch (s->kind) {
  case ADD: return x->v[i] + at(b, p, s->rank);
  case SUB: return x->v[i] - at(b, p, s->rank);
  case MUL: return x->v[i] * at(b, p, s->rank);
  case DIV: return x->v[i] / (at(b, p, s->rank) * at(b, p, s->rank) + 1);
  case RELU: return x->v[i] > 0 ? x->v[i] : 0;
  case TANH: return tanh(x->v[i]);
  case SIGMOID: return 1 / (1 + exp(-x->v[i]));
  case GELU: return x->v[i] * (1 + erf(x->v[i] / sqrt(2))) / 2;
  case MATMUL: case DENSE: {
    int64_t in = x->dims[last], row = i / s->dims[last], o = p[last];
    for (int64_t k = 0; k < in; k++) v += x->v[row * in + k] * (s->kind == MATMUL ? b->v[k * s->dims[last] + o] : b->v[o * in + k]);
    return s->kind == DENSE ? v + c->v[o] : v;
  }
  case SOFTMAX: {
    double top = -INFINITY, sum = 0;
    for (q[s->axis] = 0; q[s->axis] < s->dims[s->axis]; q[s->axis]++) top = fmax(top, x->v[ravel(x, q)]);
    for (q[s->axis] = 0; q[s->axis] < s->dims[s->axis]; q[s->axis]++) sum += exp(x->v[ravel(x, q)] - top);
    return exp(x->v[i] - top) / sum;
  }
  case NORM: {
    int64_t n = s->dims[last], row = i / n * n;
    double mean = 0, var = 0;
    for (int64_t k = 0; k < n; k++) mean += x->v[row + k] / (double)n;
    for (int64_t k = 0; k < n; k++) var += (x->v[row + k] - mean) * (x->v[row + k] - mean) / (double)n;
    return (x->v[i] - mean) / sqrt(var + 0.1) * b->v[p[last]] + c->v[p[last]];
  }
  case RESHAPE: return x->v[i];
  case TRANSPOSE:
    for (int r = 0; r < s->rank; r++) q[s->perm[r]] = p[r];
    return x->v[ravel(x, q)];
  case CONCAT:
    if (p[s->axis] < x->dims[s->axis]) return x->v[ravel(x, p)];
    q[s->axis] -= x->dims[s->axis];
    return b->v[ravel(b, q)];
  case SLICE: q[s->axis] += s->from; return x->v[ravel(x, q)];
  case SPLIT: q[s->axis] += s->dims[s->axis]; return x->v[ravel(x, q)];
  case MEAN: return over_axis(s, x, p, true);
  case SUM: return over_axis(s, x, p, false);
  case CONV: case POOL: {
    int pad = s->k / 2;
    v = s->kind == CONV ? c->v[p[1]] : -INFINITY;
    for (int64_t ch = 0; ch < x->dims[1]; ch++)
      for (int r = 0; r < s->k; r++)
        for (int w = 0; w < s->k; w++) {
          int64_t y[RANK] = {p[0], ch, p[2] + r - pad, p[3] + w - pad};
          if (y[2] < 0 || y[3] < 0 || y[2] >= x->dims[2] || y[3] >= x->dims[3]) continue;
          if (s->kind == CONV) v += x->v[ravel(x, y)] * b->v[((p[1] * x->dims[1] + ch) * s->k + r) * s->k + w];
          else if (ch == p[1]) v = fmax(v, x->v[ravel(x, y)]);
        }
    return v;
  }
  default: return s->data[i];
  }
}

static void evaluate(test *t) {
  for (int k = 0; k < t->n; k++) {
    step *s = &t->s[k];
    int64_t n = count(s), p[RANK] = {0};
    for (int64_t i = 0; i < n; i++) {
      unravel(s, i, p);
      s->v[i] = element(t, s, p, i);
    }
  }
}

/* ---- through the API ---- */

static tn_tensor *make(tn_graph *g, test *t, int k) {
  step *s = &t->s[k];
  tn_tensor *a = t->s[s->a].t, *b = t->s[s->b].t, *c = t->s[s->c].t;
  char attrs[64];
  switch (s->kind) {
  case INPUT: return tn_input(g, NULL, TN_F32, s->rank, s->dims);
  case PARAM: return tn_param(g, NULL, TN_F32, s->rank, s->dims, s->data);
  case ADD: return tn_add(g, a, b);
  case SUB: return tn_sub(g, a, b);
  case MUL: return tn_mul(g, a, b);
  case DIV: return tn_div(g, a, tn_add(g, tn_mul(g, b, b), tn_scalar(g, TN_F32, 1)));
  case RELU: return tn_relu(g, a);
  case TANH: return tn_tanh(g, a);
  case SIGMOID: return tn_sigmoid(g, a);
  case GELU: return tn_gelu(g, a);
  case MATMUL: return tn_matmul(g, a, b);
  case SOFTMAX: return tn_softmax(g, a, s->axis);
  case RESHAPE: return tn_reshape(g, a, s->rank, s->dims);
  case TRANSPOSE: return tn_transpose(g, a, s->perm);
  case CONCAT: return tn_concat(g, 2, (tn_tensor *[]){a, b}, s->axis);
  case SLICE: return tn_slice(g, a, s->axis, s->from, s->to);
  case MEAN: return tn_mean(g, a, s->axis, 1);
  case SUM: return tn_sum(g, a, s->axis, 1);
  case DENSE: return tn_add(g, tn_matmul(g, a, tn_transpose(g, b, NULL)), c);
  case NORM: return tn_op(g, "LayerNormalization", 3, (tn_tensor *[]){a, b, c}, "axis=-1 epsilon=0.1");
  case CONV:
    snprintf(attrs, sizeof attrs, "pads=[%d,%d,%d,%d]", s->k / 2, s->k / 2, s->k / 2, s->k / 2);
    return tn_op(g, "Conv", 3, (tn_tensor *[]){a, b, c}, attrs);
  case POOL: return tn_max_pool(g, a, s->k, 1, s->k / 2);
  case SPLIT: {
    tn_tensor *halves[2];
    snprintf(attrs, sizeof attrs, "axis=%d num_outputs=2", s->axis);
    return tn_op_n(g, "Split", 1, &a, attrs, 2, halves) == TN_OK ? halves[1] : NULL;
  }
  default: return NULL;
  }
}

static bool compare(test *t, uint64_t seed, const char *when, const bool *bound) {
  evaluate(t);
  for (int k = 0; k < t->n; k++) {
    const step *s = &t->s[k];
    double top = 1, worst = 0;
    int64_t n = count(s);
    if (!bound[k]) continue;
    for (int64_t i = 0; i < n; i++) {
      top = fmax(top, fabs(s->v[i]));
      double d = fabs(s->v[i] - s->got[i]);
      worst = d > worst || isnan(d) ? d : worst;
    }
    if (worst <= 1e-4 * top) continue;
    fprintf(stderr, "graph %llu, %s: step %d is off by %g of %g:\n", (unsigned long long)seed, when, k, worst, top);
    for (int j = 0; j < t->n; j++) {
      fprintf(stderr, "  %d = %s(%d, %d, %d) axis %d k %d [", j, kind_names[t->s[j].kind], t->s[j].a, t->s[j].b, t->s[j].c, t->s[j].axis, t->s[j].k);
      for (int r = 0; r < t->s[j].rank; r++) fprintf(stderr, " %lld", (long long)t->s[j].dims[r]);
      fprintf(stderr, " ]%s\n", bound[j] ? " compared" : "");
    }
    return false;
  }
  return true;
}

static atomic_llong turn, wrong, used[KINDS];

static bool one(test *t, uint64_t seed) {
  generate(t, seed);
  tn_ctx *ctx = tn_ctx_new(NULL);
  tn_graph *g = tn_graph_new(ctx, "random");
  bool ok = false, bound[MAX_STEPS] = {false};
  tn_binding b[MAX_STEPS];
  tn_tensor *fetch[MAX_STEPS];
  int nb = 0, nfetch = 0, last_param = -1;
  tn_module *m = NULL;
  tn_status s = TN_OK;
  for (int k = 0; k < t->n; k++) {
    t->s[k].t = make(g, t, k);
    if (!t->s[k].t) goto done;
    atomic_fetch_add(&used[t->s[k].kind], 1);
    if (t->s[k].kind == PARAM) last_param = k;
    if (t->s[k].kind == INPUT) b[nb++] = (tn_binding){t->s[k].t, t->s[k].data};
    else if (t->s[k].kind != PARAM && (k == t->n - 1 || below(t, 3) == 0)) {
      bound[k] = true;
      b[nb++] = (tn_binding){t->s[k].t, t->s[k].got};
      if (k < t->n - 1) fetch[nfetch++] = t->s[k].t;
    }
  }
  s = tn_output(g, NULL, t->s[t->n - 1].t);
  m = s ? NULL : tn_compile(g, &(tn_options){.db = "none"}, nfetch, fetch);
  if (!m) goto done;
  s = tn_run(m, nb, b);
  ok = s == TN_OK && compare(t, seed, "first run", bound);
  if (ok && last_param >= 0) {
    step *p = &t->s[last_param];
    for (int64_t i = 0; i < count(p); i++) p->data[i] = p->data[i] / 2 + 0.25f;
    s = tn_module_set(m, p->t, p->data);
    if (!s) s = tn_run(m, nb, b);
    ok = s == TN_OK && compare(t, seed, "second run", bound);
  }
  if (seed % 2) tn_module_free(m); /* else with the context */
done:
  if (!ok && (!m || s)) fprintf(stderr, "graph %llu: %s\n", (unsigned long long)seed, m ? tn_run_error() : tn_error(ctx));
  tn_ctx_free(ctx);
  return ok;
}

static long long total;
static uint64_t first_seed;

static void *work(void *arg) {
  (void)arg;
  test *t = calloc(1, sizeof *t);
  if (!t) exit(5);
  for (long long i; (i = atomic_fetch_add(&turn, 1)) < total;)
    if (!one(t, first_seed + (uint64_t)i)) atomic_fetch_add(&wrong, 1);
  free(t);
  return NULL;
}

static void run(long long upto, int threads) {
  pthread_t t[64];
  total = upto;
  for (int i = 0; i < threads; i++)
    if (pthread_create(&t[i], NULL, work, NULL)) exit(5);
  for (int i = 0; i < threads; i++) pthread_join(t[i], NULL);
  atomic_store(&turn, upto);
}

static long resident(void) { /* KiB */
  long pages = 0, skip;
  FILE *f = fopen("/proc/self/statm", "r");
  if (!f || fscanf(f, "%ld %ld", &skip, &pages) != 2) pages = 0;
  if (f) fclose(f);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

int main(int argc, char **argv) {
  long long graphs = argc > 1 ? atoll(argv[1]) : 1000;
  int threads = argc > 2 ? atoi(argv[2]) : 4;
  first_seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1;
  if (threads < 1 || threads > 64 || graphs < 1) return 2;
  long long warm = graphs / 4;
  run(warm, threads);
  long before = resident();
  for (int i = 1; i <= 3; i++) {
    run(warm + (graphs - warm) * i / 3, threads);
    printf("%lld graphs: %ld KiB resident, %ld KiB more than after %lld\n", total, resident(), resident() - before, warm);
    fflush(stdout);
  }
  long grown = resident() - before;
  for (int k = 0; k < KINDS; k++) printf("%s%s %lld", k ? ", " : "", kind_names[k], (long long)used[k]);
  printf("\n%lld graphs in %d threads, %lld wrong\n", graphs, threads, (long long)wrong);
  if (graphs >= 400 && before && grown > 16 << 10) { /* 16 MiB: what allocators keep moves about */
    printf("memory grew by %ld KiB\n", grown);
    return 1;
  }
  return wrong ? 1 : 0;
}
