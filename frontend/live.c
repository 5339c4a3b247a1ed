/* live.c — which graphs exist: a call with one whose context was freed is an error, not a crash.
 * One table for the process, behind a lock; each thread remembers the last graph that it found. */
#include "frontend/api.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const tn_graph **graphs; /* few: a plain list */
static size_t ngraphs, room;
static atomic_uint_fast64_t changes = 1; /* a graph has gone since */

static _Thread_local const tn_graph *last;
static _Thread_local uint_fast64_t last_change;

static void leave(void *arg) {
  pthread_mutex_lock(&lock);
  atomic_fetch_add(&changes, 1);
  for (size_t i = 0; i < ngraphs; i++)
    if (graphs[i] == arg) {
      graphs[i] = graphs[--ngraphs];
      break;
    }
  if (!ngraphs) free(graphs), graphs = NULL, room = 0;
  pthread_mutex_unlock(&lock);
}

void fe_live_add(tn_ctx *ctx, tn_graph *g) {
  ir_defer(ctx, leave, g); /* first: registering may itself throw */
  pthread_mutex_lock(&lock);
  if (ngraphs == room) {
    size_t more = room ? 2 * room : 16;
    const tn_graph **p = realloc(graphs, more * sizeof *p);
    if (p) graphs = p, room = more;
  }
  bool fits = ngraphs < room;
  if (fits) graphs[ngraphs++] = g;
  pthread_mutex_unlock(&lock);
  if (!fits) ir_fail(ctx, TN_ERESOURCE, "out of memory");
}

bool fe_alive(const tn_graph *g) {
  if (!g) return false;
  uint_fast64_t now = atomic_load_explicit(&changes, memory_order_acquire);
  if (g == last && now == last_change) return true;
  bool found = false;
  pthread_mutex_lock(&lock);
  for (size_t i = ngraphs; i-- > 0 && !found;) found = graphs[i] == g;
  pthread_mutex_unlock(&lock);
  if (found) last = g, last_change = now;
  else fe_run_error(TN_EUSAGE, "the graph's context was freed");
  return found;
}
