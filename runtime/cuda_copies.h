/* cuda_copies.h — copies between the caller's memory and a device's, beside the kernels.
 *
 *   caller ─ memcpy ─ pinned pieces ─┬─ up ──────┐ arrive: an event that the kernels' stream waits for
 *                                    │           v
 *                                    │   kernels' stream ─ leave: an event for each part of a run
 *                                    │           │
 *   caller ─ memcpy ─ pinned pieces ─┴─ down <───┘
 *
 * Two streams, since a copy down waits for kernels, and copies up behind it would wait, too. What is pageable goes through pinned
 * pieces of RT_CUDA_PIECE bytes, RT_CUDA_PIECES each way, taken in turn; what is pinned goes as it is. Where the
 * system gives no pinned memory, copies are the driver's own. Copies of one run at a time: it ends with rt_cuda_down_end, or, failing, with
 * rt_cuda_copies_drop. */
#ifndef RT_CUDA_COPIES_H
#define RT_CUDA_COPIES_H
#include "runtime/cuda_device.h"

enum { RT_CUDA_PIECE = 1 << 20, RT_CUDA_PIECES = 4, RT_CUDA_PARTS = 16, RT_CUDA_TARGETS = 64 };

typedef struct rt_cuda_target { /* where part of a piece goes when it is here */
  void *to;
  size_t at, bytes;
} rt_cuda_target;

typedef struct rt_cuda_ring { /* pinned pieces of one direction */
  char *memory;     /* null: none yet */
  bool refused;     /* there is none */
  CUstream by;      /* that copies of the piece being filled are in */
  int piece;        /* that is being filled */
  size_t full;      /* of its bytes */
  bool busy[RT_CUDA_PIECES];     /* a copy of it may be under way, which `done` tells the end of; down: or a memcpy is left to do */
  CUevent done[RT_CUDA_PIECES];
  int ntargets[RT_CUDA_PIECES];  /* down */
  rt_cuda_target targets[RT_CUDA_PIECES][RT_CUDA_TARGETS];
} rt_cuda_ring;

typedef struct rt_cuda_leaving { /* a copy down, as far as it is not issued */
  char *to;
  CUdeviceptr from;
  size_t bytes;
  const char *what;
  int part;
  bool pinned;
} rt_cuda_leaving;

struct rt_cuda_device {
  tn_ctx *ctx;
  const rt_cuda_driver_table *cu;
  CUdevice number;
  CUcontext context;
  CUstream stream, up, down; /* stream: of kernels */
  CUevent arrived, left[RT_CUDA_PARTS + 1];
  rt_cuda_ring ups, downs;
  rt_cuda_leaving *leaving;
  int nleaving, room, next, waited; /* next: to be issued; waited: the part that `down` waited for last, -1: none */
  const char *name;
  char lost[256]; /* "" while it works */
  bool open;
};

/* Of a device that is being opened or closed. */
void rt_cuda_copies_new(tn_ctx *ctx, rt_cuda_device *d);
void rt_cuda_copies_free(rt_cuda_device *d);

/* Copies up, by stream `by`: d->up, then rt_cuda_arrive, or d->stream where nothing goes on beside it. `from` is not read any more when
 * this returns if it is pageable; pinned memory is until the run's end. */
void rt_cuda_up(tn_ctx *ctx, rt_cuda_device *d, CUstream by, CUdeviceptr to, const void *from, size_t bytes, const char *what);
/* What kernels follow find all that was copied up. */
void rt_cuda_arrive(tn_ctx *ctx, rt_cuda_device *d);

/* Part `part` (from 0 on, at most RT_CUDA_PARTS) of a run is issued: copies down that name it wait for its end. */
void rt_cuda_leave(tn_ctx *ctx, rt_cuda_device *d, int part);
/* A copy down once a part is over; issued as far as there are pieces for it, the rest by rt_cuda_down_end. Part -1: by the kernels' stream, in
 * its order; a run has copies of the one kind or of the other. */
void rt_cuda_down(tn_ctx *ctx, rt_cuda_device *d, int part, void *to, CUdeviceptr from, size_t bytes, const char *what);
/* Waits until all kernels and copies are done. */
void rt_cuda_down_end(tn_ctx *ctx, rt_cuda_device *d);
/* The same for a run that failed: afterwards nobody touches the caller's memory any more. Throws nothing. */
void rt_cuda_copies_drop(rt_cuda_device *d);
#endif
