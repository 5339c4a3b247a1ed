/* fake_nvrtc.c — an NVRTC for tests: its "cubins" are those of fake_cuda.c, shared objects that the C++ compiler makes of
 * the printed kernels and cuda_host.hpp in $FAKE_NVRTC_DIR. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OK = 0, NO_MEMORY = 1, COMPILATION = 6 };

typedef struct program {
  char *source, path[512];
} program;

int nvrtcVersion(int *major, int *minor) { return *major = 12, *minor = 0, OK; }
int nvrtcCreateProgram(program **p, const char *source, const char *name, int headers, const char *const *texts, const char *const *names) {
  (void)name, (void)headers, (void)texts, (void)names;
  *p = calloc(1, sizeof **p);
  if (*p) (*p)->source = strdup(source);
  return *p && (*p)->source ? OK : NO_MEMORY;
}

/* Helper functions without PTX stay, cuda_host.hpp brings the others; shared memory is the host's. */
static void write_source(FILE *f, const char *source) {
  const char *body = strstr(source, "extern \"C\" __global__");
  fprintf(f, "#include \"%s/tests/cuda_host.hpp\"\n", TN_SOURCE_DIR);
  for (const char *p = source; *p;) {
    int n = (int)strcspn(p, "\n");
    char *line = strndup(p, (size_t)n);
    int leave = p < body ? strstr(line, "asm") || strstr(line, "__cvta") || strstr(line, "memcpy(") || strstr(line, "tn_from_bf16(unsigned short x)") || strncmp(line, "struct ", 7) == 0 : strncmp(line, "  extern __shared__", 19) == 0;
    if (!leave) fprintf(f, "%s\n", line);
    free(line);
    p += n + (p[n] == '\n');
  }
}

int nvrtcCompileProgram(program *p, int n, const char *const *options) {
  (void)n, (void)options;
  static int count;
  const char *folder = getenv("FAKE_NVRTC_DIR"), *cxx = getenv("CXX");
  char source[540];
  snprintf(p->path, sizeof p->path, "%s/%ld_%d.so", folder ? folder : ".", (long)getpid(), __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED));
  snprintf(source, sizeof source, "%s.cpp", p->path);
  FILE *f = fopen(source, "w");
  if (!f) return COMPILATION;
  write_source(f, p->source);
  fclose(f);
  pid_t pid = fork();
  if (pid == 0) {
    const char *compiler = cxx && *cxx ? cxx : "c++";
    execlp(compiler, compiler, "-O1", "-w", "-shared", "-fPIC", "-ffp-contract=off", "-std=c++17", source, "-o", p->path, (char *)NULL);
    _exit(127);
  }
  int status = -1;
  return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? OK : COMPILATION;
}
int nvrtcGetProgramLogSize(program *p, size_t *n) { return (void)p, *n = 1, OK; }
int nvrtcGetProgramLog(program *p, char *log) { return (void)p, *log = 0, OK; }
int nvrtcGetCUBINSize(program *p, size_t *n) { return *n = strlen(p->path) + 1, OK; }
int nvrtcGetCUBIN(program *p, char *cubin) { return strcpy(cubin, p->path), OK; }
int nvrtcDestroyProgram(program **p) {
  free((*p)->source);
  free(*p);
  return *p = NULL, OK;
}
const char *nvrtcGetErrorString(int e) { return e ? "as the fake NVRTC puts it" : "no error"; }
