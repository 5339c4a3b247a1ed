/* fake_cuda_streams.c — streams, events and graphs of the fake driver. Nothing happens when it is asked for: an action waits in
 * the queue of its stream until somebody waits for it, and what no event orders goes in the order that FAKE_CUDA says:
 *   order=0   (the default) what was waited for, and what that waits for in turn, is done; all else as late as can be
 *   order=1.. the streams in order of creation, those first that come first from number N on, as far as each of them can go
 *   order=10.. the same backwards
 *   order=100.. any that can go on, by this seed; some go on while the host does
 * So a copy that lacks an event shows as a wrong result in one of these orders. Pinned memory of the host is read and written when the action
 * is done; pageable memory as CUDA promises ("API synchronization behavior"): copies from it have read it when the call returns,
 * copies to it are done then. Capture records what comes to a stream; a wait there for what lies outside is refused. */
#include "fake_cuda.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct mark { /* what an event stands for since it was recorded last */
  int done, holders;
  struct stream *of;
  long long issued;
} mark;
typedef enum kind { LAUNCH, COPY, FILL, HOST, RECORD, WAIT } kind;
typedef struct action {
  kind kind;
  function *f;
  unsigned grid, threads;
  ptr args[16], to, from;
  size_t n;
  void *staged; /* of a copy: freed behind it */
  void (*host)(void *);
  void *arg;    /* of host: kept for ever */
  mark *mark;
} action;
typedef struct graph {
  int n;
  action *all;
} graph;
typedef struct stream {
  int (*host)(struct stream *s, void (*f)(void *), const void *arg, size_t size); /* for fakes of libraries: a function, in the stream's order */
  action *all;  /* from `first` on not done yet */
  int first, n;
  graph *recording;
  struct stream *next;
} stream;
typedef struct event {
  mark *mark;
} event;

static stream *streams; /* in order of creation */
static uint64_t seed;

static void drop_mark(mark *m) {
  if (m && !--m->holders) free(m);
}
static void drop_action(action *a) {
  free(a->staged);
  drop_mark(a->mark);
}

static int perform(const action *a) {
  if (state.lost) return state.lost;
  switch (a->kind) {
  case COPY: memmove((void *)(uintptr_t)a->to, (void *)(uintptr_t)a->from, a->n); return OK;
  case FILL: memset((void *)(uintptr_t)a->to, (int)a->from, a->n); return OK;
  case HOST: a->host(a->arg); return OK;
  case RECORD:
  case WAIT: return OK;
  case LAUNCH: break;
  }
  while (a->grid == option("hang", -1)) sleep(1);
  if (++state.launches == option("trap", -1)) return state.lost = TRAP;
  void *args[16];
  for (int i = 0; i < 16; i++) args[i] = (void *)&a->args[i];
  return a->f->launch(a->f->code, a->grid, a->threads, 16, args) ? state.lost = TRAP : OK;
}

static action *head(stream *s) { return s->first < s->n ? &s->all[s->first] : NULL; }
static int can_go(stream *s) { return head(s) && (head(s)->kind != WAIT || head(s)->mark->done); }
static void go(stream *s) {
  action a = s->all[s->first++];
  perform(&a);
  if (a.kind == RECORD) a.mark->done = 1;
  drop_action(&a);
  if (s->first == s->n) s->first = s->n = 0;
}

static int pick(int n) {
  seed = seed * 6364136223846793005u + 1442695040888963407u;
  return (int)((seed >> 33) % (unsigned)n);
}

/* The next to go on where somebody waits for s. */
static stream *next_of(stream *s) {
  long order = option("order", 0);
  if (!order) {
    while (!can_go(s)) s = head(s)->mark->of;
    return s;
  }
  stream *able[16];
  int n = 0, all = 0;
  for (stream *x = streams; x; x = x->next) all++;
  for (int i = 0; i < all && n < 16; i++) {
    int k = (int)((order % 100 + i) % all);
    stream *x = streams;
    for (k = order >= 10 && order < 100 ? all - 1 - k : k; k; k--) x = x->next;
    if (can_go(x)) able[n++] = x;
  }
  return able[order >= 100 ? pick(n) : 0];
}
static int finish(stream *s) {
  if (s->recording) return CAPTURING;
  while (head(s)) go(next_of(s));
  return state.lost;
}
static void reach(mark *m) {
  while (!m->done) go(next_of(m->of));
}

static int put(stream *s, action a) {
  if (s->recording) {
    graph *g = s->recording;
    g->all = realloc(g->all, (size_t)(g->n + 1) * sizeof a);
    g->all[g->n++] = a;
    return OK;
  }
  s->all = realloc(s->all, (size_t)(s->n + 1) * sizeof a);
  s->all[s->n++] = a;
  if (a.kind == LAUNCH) state.issued++;
  if (option("order", 0) >= 100) {
    if (!seed) seed = (uint64_t)option("order", 0);
    for (int k = pick(3); k && head(s); k--) go(next_of(s));
  }
  return OK;
}

static int host_action(stream *s, void (*f)(void *), const void *arg, size_t size) {
  void *kept = malloc(size + 1 + sizeof(void *));
  static void *all; /* reachable: no leak to those who look for them */
  *(void **)kept = all;
  all = kept;
  return put(s, (action){.kind = HOST, .host = f, .arg = memcpy((char *)kept + sizeof(void *), arg, size)});
}

int cuMemcpyHtoDAsync_v2(ptr to, const void *from, size_t n, stream *s) {
  CHECK;
  action a = {.kind = COPY, .to = to, .from = (ptr)(uintptr_t)from, .n = n};
  if (is_pinned(from)) return put(s, a);
  if (s->recording) return CAPTURING;
  a.staged = memcpy(malloc(n + 1), from, n);
  a.from = (ptr)(uintptr_t)a.staged;
  return put(s, a);
}
int cuMemcpyDtoHAsync_v2(void *to, ptr from, size_t n, stream *s) {
  CHECK;
  if (s->recording && !is_pinned(to)) return CAPTURING;
  put(s, (action){.kind = COPY, .to = (ptr)(uintptr_t)to, .from = from, .n = n});
  if (!is_pinned(to)) finish(s);
  return state.lost;
}
int cuMemcpyDtoDAsync_v2(ptr to, ptr from, size_t n, stream *s) { CHECK; return put(s, (action){.kind = COPY, .to = to, .from = from, .n = n}); }
int cuMemsetD8Async(ptr p, unsigned char v, size_t n, stream *s) { CHECK; return put(s, (action){.kind = FILL, .to = p, .from = v, .n = n}); }

int cuStreamCreate(stream **to, unsigned flags) {
  CHECK;
  stream *s = calloc(1, sizeof *s), **last = &streams;
  *s = (stream){.host = host_action};
  while (*last) last = &(*last)->next;
  state.streams++;
  return *to = *last = s, OK;
}
static void drop_stream(stream *s) {
  for (; head(s); s->first++) drop_action(head(s));
  stream **at = &streams;
  while (*at != s) at = &(*at)->next;
  *at = s->next;
  free(s->all);
  free(s);
}
int cuStreamDestroy_v2(stream *s) {
  CHECK;
  finish(s);
  drop_stream(s);
  state.streams--;
  return OK;
}
void forget_streams(void) {
  while (streams) drop_stream(streams);
}
int cuStreamSynchronize(stream *s) {
  CHECK;
  return finish(s);
}
int cuLaunchKernel(function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, stream *s, void **args, void **extra) {
  CHECK;
  if (!gx || gy != 1 || gz != 1 || !bx || bx > 1024 || by != 1 || bz != 1 || (int)shared > f->shared) return BAD;
  action a = {.kind = LAUNCH, .f = f, .grid = gx, .threads = bx};
  /* the number of arguments is the function's own: those that are there lie before a null */
  for (int i = 0; i < 16 && args[i]; i++) a.args[i] = argument(args[i]);
  return put(s, a);
}

int cuEventCreate(event **e, unsigned flags) {
  CHECK;
  state.events++;
  return *e = calloc(1, sizeof **e), OK;
}
int cuEventDestroy_v2(event *e) {
  CHECK;
  drop_mark(e->mark);
  free(e);
  state.events--;
  return OK;
}
int cuEventRecord(event *e, stream *s) {
  CHECK;
  if (s->recording) return CAPTURING;
  drop_mark(e->mark);
  e->mark = malloc(sizeof *e->mark);
  *e->mark = (mark){.holders = 2, .of = s, .issued = state.issued};
  return put(s, (action){.kind = RECORD, .mark = e->mark});
}
int cuStreamWaitEvent(stream *s, event *e, unsigned flags) {
  CHECK;
  if (s->recording) return CAPTURING;
  if (!e->mark || e->mark->done) return OK;
  e->mark->holders++;
  return put(s, (action){.kind = WAIT, .mark = e->mark});
}
int cuEventSynchronize(event *e) {
  CHECK;
  if (e->mark) reach(e->mark);
  return state.lost;
}
/* A run takes a millisecond and a little for each launch: what needs none, as a library's plan, is the fastest. */
int cuEventElapsedTime(float *ms, event *a, event *b) {
  CHECK;
  if (!a->mark || !b->mark || !a->mark->done || !b->mark->done) return NOT_READY;
  return *ms = 1 + 0.01f * (float)(b->mark->issued - a->mark->issued), OK;
}

int cuStreamBeginCapture_v2(stream *s, int mode) {
  CHECK;
  if (option("nocapture", 0) || s->recording) return BAD;
  s->recording = calloc(1, sizeof *s->recording);
  return OK;
}
int cuStreamEndCapture(stream *s, graph **g) {
  if (!s->recording) return BAD;
  *g = s->recording;
  s->recording = NULL;
  state.graphs++;
  return OK;
}
int cuGraphInstantiateWithFlags(graph **x, graph *from, unsigned long long flags) {
  CHECK;
  graph *copy = calloc(1, sizeof *copy);
  copy->n = from->n;
  copy->all = malloc((size_t)(from->n + 1) * sizeof *copy->all);
  if (from->n) memcpy(copy->all, from->all, (size_t)from->n * sizeof *copy->all);
  state.graphs++;
  return *x = copy, OK;
}
int cuGraphLaunch(graph *g, stream *s) {
  CHECK;
  for (int i = 0; i < g->n; i++) put(s, g->all[i]);
  return OK;
}
static void drop_graph(graph *g) {
  free(g->all);
  free(g);
  state.graphs--;
}
int cuGraphDestroy(graph *g) { return drop_graph(g), OK; }
int cuGraphExecDestroy(graph *x) { return drop_graph(x), OK; }
