/* cuda_lib.c — see cuda_lib.h. */
#include "runtime/cuda_lib.h"
#include <dlfcn.h>
#include <glob.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct {
  const char *name, *files[5]; /* newest first */
} rows[RT_CUDA_LIBS] = {
    [RT_CUDA_NVRTC] = {"NVRTC", {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"}},
    [RT_CUDA_DRIVER] = {"CUDA driver", {"libcuda.so.1", "libcuda.so"}},
    [RT_CUDA_BLASLT] = {"cuBLASLt", {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}},
    [RT_CUDA_DNN] = {"cuDNN", {"libcudnn.so.9", "libcudnn.so"}},
};

static const char *const folders[] = {"/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib", "/opt/cuda/lib64"};

static struct {
  rt_cuda_lib lib;
  bool tried;
  char path[4096], why[512];
} known[RT_CUDA_LIBS];
static void *stand_in; /* of dlopen; stays: libraries find it by its name */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Tries folder/file (no folder: as the loader finds it). */
static bool try_one(rt_cuda_which w, const char *folder, size_t length, const char *file) {
  int n = length ? snprintf(known[w].path, sizeof known[w].path, "%.*s/%s", (int)length, folder, file)
                 : snprintf(known[w].path, sizeof known[w].path, "%s", file);
  if (n < 0 || n >= (int)sizeof known[w].path) return false;
  known[w].lib.handle = dlopen(known[w].path, RTLD_NOW | RTLD_LOCAL);
  const char *error = known[w].lib.handle ? NULL : dlerror();
  if (known[w].lib.handle && known[w].lib.handle == stand_in) {
    dlclose(known[w].lib.handle);
    known[w].lib.handle = NULL;
    error = "libcuda.so.1: there is none, but what stands in for it";
  }
  if (error && !*known[w].why) snprintf(known[w].why, sizeof known[w].why, "%s", error);
  return known[w].lib.handle != NULL;
}

static bool try_files(rt_cuda_which w, const char *folder, size_t length) {
  for (int i = 0; i < IR_COUNT(rows[w].files) && rows[w].files[i]; i++)
    if (try_one(w, folder, length, rows[w].files[i])) return true;
  return false;
}

/* Folders of NVIDIA's wheels: `folder`, then `below`, a pattern. */
static bool try_wheels(rt_cuda_which w, const char *folder, size_t length, const char *below) {
  char pattern[4096];
  glob_t g = {0};
  int n = snprintf(pattern, sizeof pattern, "%.*s%s", (int)length, folder, below);
  bool found = false;
  if (n < 0 || n >= (int)sizeof pattern || glob(pattern, 0, NULL, &g)) return false;
  for (size_t i = 0; i < g.gl_pathc && !found; i++) found = try_files(w, g.gl_pathv[i], strlen(g.gl_pathv[i]));
  globfree(&g);
  return found;
}

static void find_version(rt_cuda_which w) {
  int major = 0, minor = 0;
  rt_cuda_lib *l = &known[w].lib;
  if (w == RT_CUDA_NVRTC) {
    int (*version)(int *, int *) = (int (*)(int *, int *))dlsym(l->handle, "nvrtcVersion");
    if (version && version(&major, &minor) == 0) l->version = major * 1000 + minor * 10;
  } else if (w == RT_CUDA_DRIVER) {
    int (*version)(int *) = (int (*)(int *))dlsym(l->handle, "cuDriverGetVersion");
    if (!version || version(&l->version) != 0) l->version = 0;
  } else {
    size_t (*version)(void) = (size_t(*)(void))dlsym(l->handle, w == RT_CUDA_DNN ? "cudnnGetVersion" : "cublasLtGetVersion");
    if (version) l->version = (int)version();
  }
}

static void open_library(rt_cuda_which w) {
  known[w].tried = true;
  known[w].lib = (rt_cuda_lib){.name = rows[w].name};
  *known[w].why = 0;
  bool found = false, only = false;
  for (const char *p = getenv("TENON_CUDA_PATH"); p && *p && !found;) {
    size_t n = strcspn(p, ":");
    if (n == 1 && *p == '-') only = true;
    else if (n) found = try_files(w, p, n) || try_wheels(w, p, n, "/nvidia/*/lib");
    p += n + (p[n] == ':');
  }
  if (!found && !only) found = try_files(w, NULL, 0);
  for (int i = 0; i < IR_COUNT(folders) && !found && !only; i++) found = try_files(w, folders[i], strlen(folders[i]));
  const char *python = getenv("VIRTUAL_ENV");
  if (!found && !only && python && *python) found = try_wheels(w, python, strlen(python), "/lib/python3*/site-packages/nvidia/*/lib");
  if (found) {
    known[w].lib.path = known[w].path;
    find_version(w);
  } else {
    if (!*known[w].why) snprintf(known[w].why, sizeof known[w].why, "%s is not to be looked for", rows[w].files[0]);
    known[w].lib.why = known[w].why;
  }
}

const rt_cuda_lib *rt_cuda_library(rt_cuda_which w) {
  pthread_mutex_lock(&lock);
  if (!known[w].tried) open_library(w);
  pthread_mutex_unlock(&lock);
  return &known[w].lib;
}

void *rt_cuda_symbol(rt_cuda_which w, const char *symbol) {
  const rt_cuda_lib *l = rt_cuda_library(w);
  return l->handle ? dlsym(l->handle, symbol) : NULL;
}

void rt_cuda_forget(void) {
  pthread_mutex_lock(&lock);
  for (int i = 0; i < RT_CUDA_LIBS; i++) known[i].tried = false; /* handles stay open: code of them may be in use */
  pthread_mutex_unlock(&lock);
}

/* ---- a driver for plans alone ---- */

extern const unsigned char tn_standin_bytes[], tn_standin_end[]; /* of runtime/standin/cuda.c, by CMakeLists.txt */

static void *load_stand_in(void) {
  size_t size = (size_t)(tn_standin_end - tn_standin_bytes), done = 0;
  int file = memfd_create("libcuda.so.1", MFD_CLOEXEC);
  char path[64];
  void *handle = NULL;
  for (ssize_t n = 1; file >= 0 && n > 0 && done < size; done += n > 0 ? (size_t)n : 0) n = write(file, tn_standin_bytes + done, size - done);
  snprintf(path, sizeof path, "/proc/self/fd/%d", file);
  if (done == size) handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (file >= 0) close(file);
  return handle;
}

bool rt_cuda_stand_in(void) {
  int (*begin)(unsigned flags) = (int (*)(unsigned))rt_cuda_symbol(RT_CUDA_DRIVER, "cuInit");
  if (begin) begin(0); /* without a device it fails, and so will what loads code */
  if (rt_cuda_library(RT_CUDA_DRIVER)->handle) return false;
  pthread_mutex_lock(&lock);
  if (!stand_in) stand_in = load_stand_in();
  pthread_mutex_unlock(&lock);
  return stand_in != NULL;
}
