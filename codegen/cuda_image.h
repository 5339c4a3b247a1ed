/* cuda_image.h — a program for GPUs as it lies in an object: what the launcher (launcher/cuda.c) reads.
 *
 *   image │ io │ archs │ per arch: kernels │ calls │ steps │ args │ symbols, cubins (aligned to 64)
 *
 * Places are bytes from the image's start. Read as C structs by code of the machine that it was written for.
 *
 * A program that decides nothing is its steps in order. Others have a function of machine code that decides (cu_walk), and tells the
 * launcher which calls to issue; expressions of sizes are cases of another (cu_number), told from 1 on, 0 standing for none. */
#ifndef CG_CUDA_IMAGE_H
#define CG_CUDA_IMAGE_H
#include <stdint.h>

typedef struct cu_image {
  uint32_t narchs, nin, nout, nout_dims, ndims, unused; /* ndims: of the program */
  uint64_t archs, in, out, out_dims;     /* cu_image_arch, cu_image_io, cu_image_io, cu_image_extent */
  uint64_t weights_bytes, arena_bytes, state_bytes; /* on the device */
  uint64_t session_bytes;                /* of the caller's arena */
  unsigned char blob[32];                /* how the blob of the weights begins; behind its header are the weights */
  uint64_t blob_header;
} cu_image;

typedef struct cu_image_io {
  uint64_t bytes, align;
  uint32_t back;   /* not 0: an input that the run changes */
  uint32_t number; /* of the program's dims: its bytes in this run, at most `bytes` */
} cu_image_io;

typedef struct cu_image_extent {
  int64_t n;
  uint64_t number; /* of the program's dims, in place of n */
  uint32_t base, index, found, unused; /* found not 0: what an i64 on the device is behind the run, 0 to n */
  uint64_t offset;
} cu_image_extent;

typedef struct cu_image_arch { /* code for one architecture: the last in the list that fits the device is taken */
  uint32_t sm, exact;   /* exact: runs on this one only; else also on later ones of the same major version */
  uint32_t nkernels, nsteps;
  uint64_t kernels, steps, scratch_bytes, nmaps;
  uint64_t calls; /* cu_image_call, of programs that decide: instructions in the order of the program's text, the arms of an if in turn */
} cu_image_arch;

typedef struct cu_image_call {
  uint32_t first, n; /* steps */
} cu_image_call;

typedef struct cu_image_kernel {
  uint64_t cubin;
} cu_image_kernel;

typedef enum cu_image_base { CU_IMAGE_IN, CU_IMAGE_OUT, CU_IMAGE_WEIGHTS, CU_IMAGE_ARENA, CU_IMAGE_SCRATCH, CU_IMAGE_STATE } cu_image_base;
typedef struct cu_image_arg {
  uint32_t base, index; /* index: of the input or output */
  uint64_t offset, step; /* step: bytes further for each part of a batch that lies before */
} cu_image_arg;

/* A tensor map as the driver is to encode it: strides in bytes of axis 1 and on; lower, upper: im2col where pixels > 0.
 * Numbers of the driver's enumerations: "CUDA Driver API", CUtensorMapDataType and the like. */
enum { CU_MAP_U8 = 0, CU_MAP_F16 = 6, CU_MAP_BF16 = 9, CU_MAP_NOT_INTERLEAVED = 0, CU_MAP_SWIZZLE_128B = 3, CU_MAP_L2_128B = 2, CU_MAP_ZEROS = 0, CU_MAP_BYTES = 128 };
typedef struct cu_image_map {
  cu_image_arg tensor;
  uint64_t extents[5], strides[4];
  uint32_t box[5], steps[5];
  int32_t lower[3], upper[3];
  uint32_t type, rank, channels, pixels;
} cu_image_map;

enum { CU_IMAGE_COPY = 0xffffffffu, CU_IMAGE_MAX_ARGS = 128 };
typedef struct cu_image_step { /* a launch; a copy of `bytes` from args[1] to args[0] where kernel is CU_IMAGE_COPY */
  uint32_t kernel, grid, threads, shared, nargs, nmaps;
  uint64_t args, symbol, bytes;
  uint64_t maps, first_map; /* cu_image_map, which follow the args; their number among those of all steps */
  uint32_t ndims, number;   /* dims of the kernel, which follow the maps; of those: the grid, in place of `grid` */
} cu_image_step;

enum { CU_IMAGE_FUNCTIONS = 27, CU_IMAGE_OPTIONAL = 8 }; /* of the driver; the last may be missing: those of maps where there are none, those of graphs */
/* Walks the program with these dims: 0, or what tn_cuda_call or tn_cuda_read failed with. Without a session it only says
 * whether there is a program for these dims, 0 or CG_RUN_DIMS. */
typedef int (*cu_walk)(void *session, const int64_t *dims);
typedef int64_t (*cu_number)(int32_t number, const int64_t *dims);

/* A run's launches as a CUDA graph, for one choice of the program's dims. */
enum { CU_IMAGE_GRAPHS = 8 };
typedef struct cu_session_graph {
  void *exec;      /* null: none */
  uint64_t last;   /* the run that it was for last; 0: none */
  uint64_t refused; /* not 0: it was tried */
} cu_session_graph;

typedef struct cu_session { /* what the arena holds between runs */
  uint64_t magic;
  const cu_image *image;
  cu_number number;
  const void *const *given; /* the caller's inputs, while a run is under way */
  void *functions[CU_IMAGE_FUNCTIONS];
  void *context, *stream;
  const cu_image_arch *arch;
  uint64_t weights, arena, scratch, state;
  int32_t device, error; /* error: the driver's, of the call that failed last */
  int32_t walking, decides; /* walking: 1: the program is walked, 2: to be captured; decides: it asked for a value then, so its launches are not the same each time */
  uint64_t runs;
  cu_session_graph graphs[CU_IMAGE_GRAPHS]; /* in the place of the one not used for longest comes the next */
} cu_session; /* then modules, one pointer a kernel; functions, one a step; 64-bit addresses of inputs and outputs; dims, graph by
               * graph; from a multiple of 64 on tensor maps of CU_MAP_BYTES */

/* For the walk. A call of the program: `first` is the part of a batch that it is for, dims those of its kernel. And `bytes` (at most 8) of
 * the device's memory at a slot's place, once everything before is done. They return the driver's number of what failed, or 0. */
int tn_cuda_call(void *session, uint32_t call, int64_t first, const int64_t *dims);
int tn_cuda_read(void *session, uint32_t base, uint32_t index, int64_t at, uint32_t bytes, void *to);

/* As in the generated header: P_cuda. */
typedef struct cu_host {
  void *ctx;
  void *(*getproc)(void *ctx, const char *symbol);
  int device;
} cu_host;


#endif
