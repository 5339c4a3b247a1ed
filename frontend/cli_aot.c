/* cli_aot.c — the object of a model, linked and loaded into this process, to be timed as a user's
 * program would run it. Needs a C compiler: $CC, or cc. */
#include "frontend/cli.h"
#include "frontend/file.h"
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct cli_object {
  void *handle;
  int (*run)(const void *const in[], void *const out[], const int64_t dims[], int64_t out_dims[], const void *weights,
             void *state, void *arena, const rt_threads *threads);
  size_t (*arena_bytes)(int workers);
  void *arena;
  const rt_threads *threads;
};

static void close_object(void *arg) {
  cli_object *o = arg;
  if (o->handle) dlclose(o->handle);
  o->handle = NULL;
}

static const char *const files[] = {"m.o", "m.h", "arena.c", "m.so"};

typedef struct folder {
  const char *path;
  int note[IR_COUNT(files) + 1];
} folder;

static void remove_folder(void *arg) {
  folder *f = arg;
  char path[256];
  for (int i = 0; i < IR_COUNT(files); i++) {
    snprintf(path, sizeof path, "%s/%s", f->path, files[i]);
    unlink(path);
  }
  rmdir(f->path);
  for (int i = 0; i <= IR_COUNT(files); i++) fe_forget_temporary(f->note[i]);
}

static const char *new_folder(tn_ctx *ctx) {
  const char *tmp = getenv("TMPDIR") && *getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
  char *dir = ir_format(ctx, "%s/tenon-aot-XXXXXX", tmp);
  folder *f = IR_NEW(ctx, folder);
  if (strlen(dir) > 200 || !mkdtemp(dir)) ir_fail(ctx, TN_ERESOURCE, "%s: no folder can be made there", tmp);
  f->path = dir;
  for (int i = 0; i < IR_COUNT(files); i++) f->note[i] = -1;
  f->note[IR_COUNT(files)] = fe_note_temporary(dir);
  ir_defer(ctx, remove_folder, f);
  for (int i = 0; i < IR_COUNT(files); i++) f->note[i] = fe_note_temporary(ir_format(ctx, "%s/%s", dir, files[i]));
  return dir;
}

static void compile(tn_ctx *ctx, const char *dir) {
  const char *cc = getenv("CC") && *getenv("CC") ? getenv("CC") : "cc";
  char *argv[] = {(char *)cc, "-O1", "-shared", "-fPIC", ir_format(ctx, "%s/arena.c", dir), ir_format(ctx, "%s/m.o", dir), "-o", ir_format(ctx, "%s/m.so", dir), "-lm", NULL};
  pid_t pid = fork();
  if (pid < 0) ir_fail(ctx, TN_ERESOURCE, "--aot: no new process");
  if (pid == 0) {
    execvp(cc, argv);
    _exit(127);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status)) ir_fail(ctx, TN_ERESOURCE, "--aot: the C compiler '%s' failed or is missing (CC names another)", cc);
}

cli_object *cli_object_load(cli *c, cli_model *m) {
  tn_ctx *ctx = c->ctx;
  const char *dir = new_folder(ctx);
  rt_object_options o = {.target = m->target, .jobs = c->threads ? (int)c->threads : rt_cpu_count()};
  o.files = (cg_object_options){.path = ir_format(ctx, "%s/m.o", dir), .header = ir_format(ctx, "%s/m.h", dir), .prefix = "m", .weights = CG_WEIGHTS_EMBED};
  rt_write_object(ctx, m->program, &o);
  const char *code = "#include \"m.h\"\nsize_t arena_bytes(int workers) { return M_ARENA_BYTES(workers); }\n";
  fe_write_file(ctx, ir_format(ctx, "%s/arena.c", dir), code, strlen(code));
  compile(ctx, dir);
  cli_object *so = IR_NEW(ctx, cli_object);
  so->handle = dlopen(ir_format(ctx, "%s/m.so", dir), RTLD_NOW | RTLD_LOCAL);
  if (!so->handle) ir_fail(ctx, TN_EINTERNAL, "--aot: %s", dlerror());
  ir_defer(ctx, close_object, so);
  so->run = (int (*)(const void *const[], void *const[], const int64_t[], int64_t[], const void *, void *, void *, const rt_threads *))dlsym(so->handle, "m_run");
  so->arena_bytes = (size_t(*)(int))dlsym(so->handle, "arena_bytes");
  if (!so->run || !so->arena_bytes) ir_fail(ctx, TN_EINTERNAL, "--aot: %s", dlerror());
  so->threads = rt_pool_threads(m->pool);
  so->arena = fe_buffer(ctx, (int64_t)so->arena_bytes(so->threads ? so->threads->workers : 1));
  return so;
}

int cli_object_run(cli_object *o, const void *const in[], void *const out[], const int64_t dims[], void *state) {
  return o->run(in, out, dims, NULL, NULL, state, o->arena, o->threads);
}
