/* scalar_ops.h — one row per scalar operation; included several times.
 *
 *   ROW(ENUM, text name, arity, result, traits)
 *
 * result:  S same as the operands   B bool   F the operand dtype, floats only
 *          X set by the builder (cast, bitcast, select, load, ...)
 * traits:  C commutative   E has a polynomial expansion (ir/expand.c)   - none
 *
 * Semantics, total on all inputs (nothing traps, nothing is undefined):
 *   integers wrap at their width; index is a mathematical integer (range checks
 *   exclude overflow) with FLOOR division and modulo by a positive divisor;
 *   data-integer div truncates, rem has the sign of the dividend; x div 0 = 0,
 *   x rem 0 = x; MIN div -1 = MIN. Shifts by >= the width give 0, or the sign
 *   for the arithmetic right shift of signed types.
 *   max(a,b) = a > b ? a : b and min(a,b) = a < b ? a : b, so when a NaN is
 *   present the SECOND operand comes back (x86 vmaxps); write max(0, x) for ReLU.
 *   Comparisons are ordered (false on NaN) but ne is true on NaN.
 *   cast float -> int truncates and saturates, NaN -> 0; int -> int wraps;
 *   x -> bool is x != 0 (NaN -> true); bool -> number is 0 or 1;
 *   float narrowing rounds to nearest even.
 *   Arithmetic of narrow floats (f16, bf16, f8*, f4e2m1) is done in f32 and rounded after each operation.
 *   f8* beyond the largest number becomes an infinity (f8e5m2) or NaN, f4e2m1 the largest number, its NaN is -0.
 *   round is to nearest even. fma rounds once; nothing else ever contracts.
 *   and/or/xor/not are bitwise on integers and logical on bool.
 * In detail (ir/eval.c is the definition):
 *   bool has no arithmetic: only not, and, or, xor, min, max, comparisons, select, cast.
 *   A shift count is read as unsigned: a negative one is >= the width.
 *   Index arithmetic wraps at 64 bits where ranges do not exclude it; floor div and rem
 *   also for a negative divisor; x div 0 = 0, x rem 0 = x.
 *   abs(MIN) = MIN; neg of an unsigned wraps.
 *   Float rem is C's fmod: exact, sign of the dividend, NaN for x rem 0.
 *   cast f64 -> narrow float rounds once (not by way of f32); cast int -> narrow float rounds
 *   to f32 first. cast float -> index saturates as i64; u64 <-> i64, index keep the bits.
 *   fma of narrow floats: in f32 with one rounding, then rounded. An op with trait E on
 *   them is its f32 expansion, rounded.
 *   bitcast: same width, not bool. The sign and payload of a NaN are never defined.
 *   Denormals are kept everywhere, inputs and results, except that sigmoid may give 0
 *   for a result below the least normal number.
 *   sin, cos, tan of a finite |x| >= 2^49 are those of 0. Error bounds: ir/expand*.c.
 */
ROW(CONST, "const", 0, X, "-")
ROW(VAR, "var", 0, X, "-")
ROW(LOAD, "load", 0, X, "-") /* args: one index per logical axis */
ROW(NEG, "neg", 1, S, "-")
ROW(ABS, "abs", 1, S, "-")
ROW(NOT, "not", 1, S, "-")
ROW(SQRT, "sqrt", 1, F, "-")
ROW(FLOOR, "floor", 1, F, "-")
ROW(CEIL, "ceil", 1, F, "-")
ROW(ROUND, "round", 1, F, "-")
ROW(TRUNC, "trunc", 1, F, "-")
ROW(EXP, "exp", 1, F, "E")
ROW(EXPM1, "expm1", 1, F, "E")
ROW(LOG, "log", 1, F, "E")
ROW(LOG1P, "log1p", 1, F, "E")
ROW(SIN, "sin", 1, F, "E")
ROW(COS, "cos", 1, F, "E")
ROW(TAN, "tan", 1, F, "E")
ROW(ASIN, "asin", 1, F, "E")
ROW(ACOS, "acos", 1, F, "E")
ROW(ATAN, "atan", 1, F, "E")
ROW(SINH, "sinh", 1, F, "E")
ROW(COSH, "cosh", 1, F, "E")
ROW(TANH, "tanh", 1, F, "E")
ROW(ASINH, "asinh", 1, F, "E")
ROW(ACOSH, "acosh", 1, F, "E")
ROW(ATANH, "atanh", 1, F, "E")
ROW(ERF, "erf", 1, F, "E")
ROW(SIGMOID, "sigmoid", 1, F, "E")
ROW(CAST, "cast", 1, X, "-")
ROW(BITCAST, "bitcast", 1, X, "-")
ROW(ADD, "add", 2, S, "C")
ROW(SUB, "sub", 2, S, "-")
ROW(MUL, "mul", 2, S, "C")
ROW(DIV, "div", 2, S, "-")
ROW(REM, "rem", 2, S, "-")
ROW(MIN, "min", 2, S, "-")
ROW(MAX, "max", 2, S, "-")
ROW(POW, "pow", 2, F, "E")
ROW(AND, "and", 2, S, "C")
ROW(OR, "or", 2, S, "C")
ROW(XOR, "xor", 2, S, "C")
ROW(SHL, "shl", 2, S, "-")
ROW(SHR, "shr", 2, S, "-") /* arithmetic on signed, logical on unsigned */
ROW(LT, "lt", 2, B, "-")
ROW(LE, "le", 2, B, "-")
ROW(EQ, "eq", 2, B, "C")
ROW(NE, "ne", 2, B, "C")
ROW(FMA, "fma", 3, F, "-")
ROW(SELECT, "select", 3, X, "-") /* cond, then, else; both may be evaluated, loads of the other arm are not */
