/* cuda_copies.c — see cuda_copies.h. */
#include "runtime/cuda_copies.h"
#include <stdlib.h>
#include <string.h>

enum { MEMORY_TYPE = 2, HOST = 1, ALIGNMENT = 64 }; /* CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_MEMORYTYPE_HOST */

void rt_cuda_copies_new(tn_ctx *ctx, rt_cuda_device *d) {
  rt_cuda_need(ctx, d, d->cu->stream_new(&d->up, CU_STREAM_NON_BLOCKING), "a stream");
  rt_cuda_need(ctx, d, d->cu->stream_new(&d->down, CU_STREAM_NON_BLOCKING), "a stream");
  rt_cuda_need(ctx, d, d->cu->event_new(&d->arrived, CU_EVENT_NO_TIMING), "an event");
  d->waited = -1;
}

static void free_ring(rt_cuda_device *d, const rt_cuda_ring *r) {
  if (r->memory) d->cu->host_free(r->memory);
  for (int i = 0; i < RT_CUDA_PIECES; i++)
    if (r->done[i]) d->cu->event_free(r->done[i]);
}

void rt_cuda_copies_free(rt_cuda_device *d) {
  rt_cuda_copies_drop(d);
  free(d->leaving);
  d->leaving = NULL;
  if (*d->lost) return; /* the rest with the context */
  free_ring(d, &d->ups);
  free_ring(d, &d->downs);
  if (d->arrived) d->cu->event_free(d->arrived);
  for (int i = 0; i < IR_COUNT(d->left); i++)
    if (d->left[i]) d->cu->event_free(d->left[i]);
  if (d->up) d->cu->stream_free(d->up);
  if (d->down) d->cu->stream_free(d->down);
}

static void make_event(tn_ctx *ctx, rt_cuda_device *d, CUevent *e) {
  if (!*e) rt_cuda_need(ctx, d, d->cu->event_new(e, CU_EVENT_NO_TIMING), "an event");
}

static bool have_ring(rt_cuda_device *d, rt_cuda_ring *r) {
  if (r->memory || r->refused) return r->memory != NULL;
  void *p = NULL;
  r->refused = d->cu->host_alloc(&p, (size_t)RT_CUDA_PIECE * RT_CUDA_PIECES, 0) != 0;
  r->memory = r->refused ? NULL : p;
  return !r->refused;
}

static bool is_pinned(rt_cuda_device *d, const void *p, size_t bytes) {
  unsigned first = 0, last = 0;
  CUdeviceptr at = (CUdeviceptr)(uintptr_t)p;
  return !d->cu->pointer_attribute(&first, MEMORY_TYPE, at) && first == HOST && !d->cu->pointer_attribute(&last, MEMORY_TYPE, at + bytes - 1) && last == HOST;
}

/* The piece's copies are all issued. */
static void close_piece(tn_ctx *ctx, rt_cuda_device *d, rt_cuda_ring *r, const char *what) {
  make_event(ctx, d, &r->done[r->piece]);
  rt_cuda_need(ctx, d, d->cu->event_record(r->done[r->piece], r->by), what);
  r->busy[r->piece] = true;
  r->piece = (r->piece + 1) % RT_CUDA_PIECES;
  r->full = 0;
}

static size_t room_of(const rt_cuda_ring *r, size_t bytes) { return bytes < RT_CUDA_PIECE - r->full ? bytes : RT_CUDA_PIECE - r->full; }
static void take(rt_cuda_ring *r, size_t bytes) { r->full += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* ---- up ---- */

void rt_cuda_up(tn_ctx *ctx, rt_cuda_device *d, CUstream by, CUdeviceptr to, const void *from, size_t bytes, const char *what) {
  const rt_cuda_driver_table *cu = d->cu;
  rt_cuda_ring *r = &d->ups;
  if (!bytes) return;
  if (is_pinned(d, from, bytes) || !have_ring(d, r)) {
    rt_cuda_need(ctx, d, cu->to_device(to, from, bytes, by), what);
    return;
  }
  if (r->full && r->by != by) close_piece(ctx, d, r, what);
  r->by = by;
  for (size_t at = 0, n; at < bytes; at += n) {
    if (r->full == RT_CUDA_PIECE) close_piece(ctx, d, r, what);
    if (r->busy[r->piece]) rt_cuda_need(ctx, d, cu->event_wait(r->done[r->piece]), what); /* what was copied from it before is there */
    r->busy[r->piece] = false;
    n = room_of(r, bytes - at);
    char *piece = r->memory + (size_t)r->piece * RT_CUDA_PIECE + r->full;
    memcpy(piece, (const char *)from + at, n);
    take(r, n);
    rt_cuda_need(ctx, d, cu->to_device(to + at, piece, n, by), what);
  }
}

void rt_cuda_arrive(tn_ctx *ctx, rt_cuda_device *d) {
  rt_cuda_need(ctx, d, d->cu->event_record(d->arrived, d->up), "a copy to the device");
  rt_cuda_need(ctx, d, d->cu->stream_wait_event(d->stream, d->arrived, 0), "a copy to the device");
}

/* ---- down ---- */

void rt_cuda_leave(tn_ctx *ctx, rt_cuda_device *d, int part) {
  make_event(ctx, d, &d->left[part]);
  rt_cuda_need(ctx, d, d->cu->event_record(d->left[part], d->stream), "a run");
}

/* A busy piece's bytes to where they belong, once they are here. */
static void empty_piece(tn_ctx *ctx, rt_cuda_device *d, rt_cuda_ring *r, int piece) {
  if (!r->busy[piece]) return;
  rt_cuda_need(ctx, d, d->cu->event_wait(r->done[piece]), "a run"); /* where a kernel that traps shows */
  for (int i = 0; i < r->ntargets[piece]; i++) {
    const rt_cuda_target *t = &r->targets[piece][i];
    memcpy(t->to, r->memory + (size_t)piece * RT_CUDA_PIECE + t->at, t->bytes);
  }
  r->ntargets[piece] = 0;
  r->busy[piece] = false;
}

/* Issues some of the next copy down; false: there is no room for it now. */
static bool issue_some(tn_ctx *ctx, rt_cuda_device *d, bool end) {
  const rt_cuda_driver_table *cu = d->cu;
  rt_cuda_leaving *l = &d->leaving[d->next];
  rt_cuda_ring *r = &d->downs;
  CUstream by = l->part < 0 ? d->stream : d->down;
  size_t n = l->bytes;
  char *to = l->to;
  if (!l->pinned && have_ring(d, r)) {
    if (r->full == RT_CUDA_PIECE || r->ntargets[r->piece] == RT_CUDA_TARGETS) close_piece(ctx, d, r, l->what);
    if (r->busy[r->piece] && !end) return false;
    empty_piece(ctx, d, r, r->piece);
    r->by = by;
    n = room_of(r, n);
    r->targets[r->piece][r->ntargets[r->piece]++] = (rt_cuda_target){to, r->full, n};
    to = r->memory + (size_t)r->piece * RT_CUDA_PIECE + r->full;
    take(r, n);
  } else if (!l->pinned && !end) return false; /* the driver would wait */
  if (d->waited < l->part) rt_cuda_need(ctx, d, cu->stream_wait_event(d->down, d->left[l->part], 0), l->what);
  if (d->waited < l->part) d->waited = l->part;
  rt_cuda_need(ctx, d, cu->to_host(to, l->from, n, by), l->what);
  l->to += n;
  l->from += n;
  l->bytes -= n;
  d->next += !l->bytes;
  return true;
}

void rt_cuda_down(tn_ctx *ctx, rt_cuda_device *d, int part, void *to, CUdeviceptr from, size_t bytes, const char *what) {
  if (!bytes) return;
  if (d->nleaving == d->room) {
    rt_cuda_leaving *more = realloc(d->leaving, sizeof *more * (size_t)(d->room ? 2 * d->room : 16));
    if (!more) ir_fail(ctx, TN_ERESOURCE, "out of memory");
    d->leaving = more;
    d->room = d->room ? 2 * d->room : 16;
  }
  d->leaving[d->nleaving++] = (rt_cuda_leaving){to, from, bytes, what, part, is_pinned(d, to, bytes)};
  while (d->next < d->nleaving && issue_some(ctx, d, false)) {}
}

static void forget(rt_cuda_device *d) {
  d->nleaving = d->next = 0;
  d->waited = -1;
}

void rt_cuda_down_end(tn_ctx *ctx, rt_cuda_device *d) {
  rt_cuda_ring *r = &d->downs;
  while (d->next < d->nleaving) issue_some(ctx, d, true);
  if (r->full) close_piece(ctx, d, r, "a run");
  for (int i = 0; i < RT_CUDA_PIECES; i++) empty_piece(ctx, d, r, (r->piece + i) % RT_CUDA_PIECES);
  if (d->waited >= 0) rt_cuda_need(ctx, d, d->cu->stream_wait(d->down), "a run"); /* what is pinned */
  rt_cuda_need(ctx, d, d->cu->stream_wait(d->stream), "a run");
  forget(d);
}

void rt_cuda_copies_drop(rt_cuda_device *d) {
  if (!*d->lost) {
    CUstream all[] = {d->up, d->stream, d->down};
    for (int i = 0; i < IR_COUNT(all); i++)
      if (all[i]) d->cu->stream_wait(all[i]);
  }
  memset(d->ups.busy, 0, sizeof d->ups.busy);
  memset(d->downs.busy, 0, sizeof d->downs.busy);
  memset(d->downs.ntargets, 0, sizeof d->downs.ntargets);
  d->ups.full = d->downs.full = 0;
  forget(d);
}
