"""The layout of a lowered program: where every number of the tables stands. Written by `lowering`, read by `kernels`.

A program is one int32 array and one array of floats. The integers begin with a header, whose fields are numbered here;
some of them say where lists of records begin. A record is a fixed number of integers; names below number its fields.
Rows (basis states) are multiplied by the number of lanes of a vector, so that they index elements of a state's plane.
"""

from __future__ import annotations

__all__ = []

# fmt: off
HEADER = (
    "rows", "amplitudes", "inputs", "weights", "outputs",
    "angles", "shared", "monomials", "coefficients",
    "steps", "n_steps", "product_rows", "n_product", "product_angles", "real_end", "kept_tables",
    "transforms", "n_transforms", "total", "classes", "n_classes", "pairs", "n_pairs", "shifts", "n_shifts",
    "out_ptr", "out_values", "out_coefficients", "values", "offsets", "plane",
)
(ROWS, AMPLITUDES, INPUTS, WEIGHTS, OUTPUTS,
 ANGLES, SHARED, MONOMIALS, COEFFICIENTS,
 STEPS, N_STEPS, PRODUCT_ROWS, N_PRODUCT, PRODUCT_ANGLES, REAL_END, KEPT_TABLES,
 TRANSFORMS, N_TRANSFORMS, TOTAL, CLASSES, N_CLASSES, PAIRS, N_PAIRS, SHIFTS, N_SHIFTS,
 OUT_PTR, OUT_VALUES, OUT_COEFFICIENTS, VALUES, OFFSETS, PLANE) = range(len(HEADER))

# Parts of the scratch array; the header's "offsets" lists where each begins.
SCRATCH = (
    "cos_sin", "excess", "drift", "d_angle", "slots", "d_slots", "values", "outputs", "buffer", "norm", "table",
    "phases", "lambda",
)
(COS_SIN, EXCESS, DRIFT, D_ANGLE, SLOTS, D_SLOTS, VALUE, OUTPUT, BUFFER, NORM, TABLE,
 PHASES, LAMBDA) = range(len(SCRATCH))
# fmt: on

# Kinds of steps. The rotations of a product state are in the start state already: only their gradient is a step.
ROTATE, GRADIENT_ONLY, PHASE = range(3)

# A block: qubits of a common relabelling of the index, whose 2**k rows stay in registers.
BLOCK_QUBITS, BLOCK_ROWS, BLOCK_COUNT, BLOCK_MOVES = range(4)
"""k; two lists of the rows from which the others are reached (`LOW_ROWS`); how many; the moves (XOR) to 2**k rows."""
BLOCK_SIZE = 4
MOST_QUBITS = 4
"""Rotations of one block, at most."""
LOW_ROWS = 64
"""A block's rows are a space over GF(2) in ascending order, so row i is the XOR of row `i % 64` and row `i - i % 64`.

Two lists of these take the place of one that would grow as 2**n with every block.
"""

# A step: kind, whether the state is real before it, whether its gradient is wanted, then by kind.
STEP_KIND, STEP_REAL, STEP_WANTED = range(3)
STEP_BLOCK, STEP_ANGLES = 3, 3 + BLOCK_SIZE
"""Of rotations: a block, and the number of each rotation's angle."""
STEP_TABLE, STEP_TRANSFORMS, STEP_N_TRANSFORMS, STEP_SAMPLED, STEP_N_SAMPLED = range(3, 8)
"""Of phases: the table of shared phases or -1; transforms of all masks; transforms of per-sample masks."""
STEP_SIZE = STEP_ANGLES + MOST_QUBITS

# A Walsh-Hadamard transform: masks that are linearly independent, the rows sorted by their parities, and per mask the
# number of the angle or of the value that belongs to it.
TRANSFORM_BITS, TRANSFORM_ORDER, TRANSFORM_NUMBERS = range(3)
MOST_MASKS = 32
TRANSFORM_SIZE = TRANSFORM_NUMBERS + MOST_MASKS
SAMPLED_BITS = 4
"""Masks of a per-sample transform: phase tables of 2**4 vectors stay in the nearest cache."""

# X and Y of the qubits of a block: then per qubit the number of the value of X, that of Y (-1 where it is not
# measured), and where the sign of Y is.
PAIR_DIRECTIONS = BLOCK_SIZE
DIRECTION_X, DIRECTION_Y, DIRECTION_SIGN, DIRECTION_SIZE = range(4)
MOST_PAIRED = 3
PAIR_SIZE = BLOCK_SIZE + MOST_PAIRED * DIRECTION_SIZE

# Strings of one X part: pairs of rows in runs of equal signs; per string whether it reads the imaginary part, and the
# number of its value; per run and string a factor.
SHIFT_X, SHIFT_ROWS, SHIFT_ENDS, SHIFT_RUNS, SHIFT_STRINGS, SHIFT_WHICH, SHIFT_FACTORS, SHIFT_SIZE = range(8)

MOST_ELEMENTS = (1 << 31) // 16
"""Of one plane of a state. The scratch array has room for some planes and tables of that size, numbered by int32."""

# What a call of the kernel is to do; flags.
FORWARD, KEPT, BACKWARD, FINISH, READY = 1, 2, 4, 8, 16
