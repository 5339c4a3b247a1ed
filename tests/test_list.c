/* test_list.c — ONNX sequences, as lists that are gone when a program is made; those of loops whose length a run finds: test_extent.c. */
#include "ops_help.h"

#define ABC "opset 17 const a: f32[2] = [1.0, 2.0] const b: f32[2] = [3.0, 4.0] const c: f32[3] = [5.0, 6.0, 7.0] const zero: i64[] = 0 const one: i64[] = 1 const last: i64[] = -1 const three: i64[] = 3 "

Test(list, elements) {
  ops_check(ABC "s = SequenceConstruct(a, b, c) u = SequenceAt(s, one) v = SequenceAt(s, last) n = SequenceLength(s) output u, b, v, c, n, three");
  ops_check(ABC "s = SequenceConstruct(a, b) t = SequenceInsert(s, c, one) u = SequenceAt(t, one) v = SequenceAt(t, last) output u, c, v, b");
  ops_check(ABC "e = SequenceEmpty() s = SequenceInsert(e, a) t = SequenceInsert(s, c) r = SequenceInsert(t, b, last) q = SequenceErase(r, zero) u = SequenceAt(q, zero) w = SequenceErase(q) v = SequenceAt(w, last) n = SequenceLength(w) output u, b, v, b, n, one");
}

Test(list, join_and_split) {
  ops_check(ABC "s = SequenceConstruct(a, b, c) y = ConcatFromSequence(s) {axis = 0} const w: f32[7] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0] output y, w");
  ops_check(ABC "s = SequenceConstruct(a, b) y = ConcatFromSequence(s) {axis = -1, new_axis = 1} const w: f32[2, 2] = [1.0, 3.0, 2.0, 4.0] output y, w");
  const char *const x = "opset 24 const x: f32[5, 2] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0] const two: i64[] = 2 const parts: i64[3] = [1, 0, 4] const zero: i64[] = 0 const one: i64[] = 1 const last: i64[] = -1 const five: i64[] = 5 ";
  char text[2048];
#define WITH_X(MORE) (snprintf(text, sizeof text, "%s%s", x, MORE), text)
  ops_check(WITH_X("s = SplitToSequence(x, two) u = SequenceAt(s, last) const w: f32[1, 2] = [9.0, 10.0] y = ConcatFromSequence(s) {axis = 0} output u, w, y, x"));
  ops_check(WITH_X("s = SplitToSequence(x, parts) u = SequenceAt(s, zero) const w: f32[1, 2] = [1.0, 2.0] n = SequenceAt(s, one) m = Shape(n) const wm: i64[2] = [0, 2] output u, w, m, wm"));
  ops_check(WITH_X("s = SplitToSequence(x) {keepdims = 0} n = SequenceLength(s) u = SequenceAt(s, one) const w: f32[2] = [3.0, 4.0] output n, five, u, w"));
  ops_refused(WITH_X("const wrong: i64[2] = [1, 3] s = SplitToSequence(x, wrong) u = SequenceAt(s, zero) output u"), TN_EINPUT, "not the 5 elements");
}

Test(list, bodies) {
  ops_check(ABC "s = SequenceConstruct(a, c) t = SequenceMap(s, three2) { body = graph m { input e input k u = Add(e, k) n = Shape(e) output u, n } } const three2: f32[] = 3.0 u = SequenceAt(t, last) const w: f32[3] = [8.0, 9.0, 10.0] output u, w");
  /* states of loops, which grow; a branch that is known */
  ops_check(ABC "const yes: bool[] = true e = SequenceConstruct(c) l = Loop(three, yes, e) { body = graph b { input i: i64[] input d: bool[] input q r = SequenceAt(q, last) k = Add(r, c) p = SequenceInsert(q, k) f = Identity(d) output f, p } }"
                " n = SequenceLength(l) const four: i64[] = 4 u = SequenceAt(l, last) const w: f32[3] = [20.0, 24.0, 28.0] output n, four, u, w");
  ops_check(ABC "const yes: bool[] = true s = If(yes) { then_branch = graph t { p = SequenceConstruct(a, b) output p }, else_branch = graph f { q = SequenceConstruct(b) output q } } u = SequenceAt(s, zero) output u, a");
}

Test(list, optional) {
  ops_check(ABC "u = OptionalGetElement(a) h = OptionalHasElement(u) n = OptionalHasElement() m = OptionalHasElement(_) const t: bool[] = true const f: bool[] = false output u, a, h, t, n, f, m, f");
}

Test(list, refused) {
  ops_refused(ABC "s = SequenceConstruct(a, b) u = SequenceAt(s, three) output u", TN_EINPUT, "position 3 of a sequence of 2");
  ops_refused(ABC "input p: i64[] s = SequenceConstruct(a, b) u = SequenceInsert(s, a, p) v = SequenceAt(u, zero) output v", TN_EUNSUPPORTED, "position");
  ops_refused(ABC "e = SequenceEmpty() y = ConcatFromSequence(e) {axis = 0} output y", TN_EINPUT, "an empty sequence");
  ops_refused(ABC "input x u = SequenceAt(x, zero) output u", TN_EUNSUPPORTED, "not known when compiling");
}
