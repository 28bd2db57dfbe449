//! Products of matrices in memory, on top of the `matrixmultiply` crate.

use crate::threads::Threads;

/// Rows of a product that one thread computes at a time.
const PANEL: usize = 16;

/// A value that matrices are made of.
pub trait Value: Copy + Send + Sync {
    /// `matrixmultiply`'s product of this type.
    ///
    /// # Safety
    /// As for [`matrixmultiply::sgemm`]: `a`, `b` and `c` with their strides stay within memory that
    /// may be read and, for `c`, written by nobody else.
    unsafe fn gemm(
        sizes: [usize; 3],
        alpha: Self,
        a: (*const Self, [isize; 2]),
        b: (*const Self, [isize; 2]),
        beta: Self,
        c: (*mut Self, [isize; 2]),
    );
}

macro_rules! value {
    ($type:ty, $gemm:ident) => {
        impl Value for $type {
            unsafe fn gemm(
                [m, k, n]: [usize; 3],
                alpha: Self,
                (a, [ra, ca]): (*const Self, [isize; 2]),
                (b, [rb, cb]): (*const Self, [isize; 2]),
                beta: Self,
                (c, [rc, cc]): (*mut Self, [isize; 2]),
            ) {
                // SAFETY: handed on to the caller.
                unsafe {
                    matrixmultiply::$gemm(m, k, n, alpha, a, ra, ca, b, rb, cb, beta, c, rc, cc);
                }
            }
        }
    };
}

value!(f32, sgemm);
value!(f64, dgemm);

/// A borrowed matrix, by rows or by columns.
#[derive(Clone, Copy)]
pub struct View<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    /// From one row to the next, and from one column to the next.
    strides: [usize; 2],
}

impl<'a, T: Value> View<'a, T> {
    /// The matrix whose rows of `columns` values lie one after the other.
    pub fn new(values: &'a [T], columns: usize) -> View<'a, T> {
        View { values, rows: values.len() / columns, columns, strides: [columns, 1] }
    }

    /// Its transpose.
    pub fn transposed(self) -> View<'a, T> {
        let [rows, columns] = self.strides;
        View { rows: self.columns, columns: self.rows, strides: [columns, rows], ..self }
    }

    /// Its rows from `first` on, at most `count`.
    fn part(self, first: usize, count: usize) -> View<'a, T> {
        let values = &self.values[first * self.strides[0]..];
        View { values, rows: count.min(self.rows - first), ..self }
    }

    /// Values from the first to the last.
    fn reach(&self) -> usize {
        match self.rows.min(self.columns) {
            0 => 0,
            _ => (self.rows - 1) * self.strides[0] + (self.columns - 1) * self.strides[1] + 1,
        }
    }
}

/// `c` ← `alpha` · `a` `b` + `beta` · `c`; a row of `c`, row-major, begins every `stride` values.
pub fn multiply<T: Value>(
    alpha: T,
    a: View<T>,
    b: View<T>,
    beta: T,
    (c, stride): (&mut [T], usize),
) {
    let (rows, columns) = (a.rows, b.columns);
    assert!(a.columns == b.rows && stride >= columns, "matrices that fit each other");
    assert!(a.reach() <= a.values.len() && b.reach() <= b.values.len());
    assert!(rows == 0 || (rows - 1) * stride + columns <= c.len());
    let strides = |[rows, columns]: [usize; 2]| [rows as isize, columns as isize];
    // SAFETY: every place that the sizes and strides allow lies within the slices, as asserted; `c` is
    // borrowed by this call alone, and its rows do not overlap.
    unsafe {
        T::gemm(
            [rows, a.columns, columns],
            alpha,
            (a.values.as_ptr(), strides(a.strides)),
            (b.values.as_ptr(), strides(b.strides)),
            beta,
            (c.as_mut_ptr(), strides([stride, 1])),
        );
    }
}

/// [`multiply`] on several threads, with the rows of `c` close to each other.
pub fn multiply_shared<T: Value>(
    alpha: T,
    a: View<T>,
    b: View<T>,
    beta: T,
    c: &mut [T],
    threads: &Threads,
) {
    let width = b.columns;
    if c.is_empty() {
        return;
    }
    // A panel reads all of `b`: the fewer rows it has, the more that counts.
    let panel = PANEL.max((a.rows / 64).next_multiple_of(PANEL));
    let panels = c.chunks_mut(panel * width).enumerate();
    threads.share(panels, |(number, c)| {
        multiply(alpha, a.part(number * panel, panel), b, beta, (c, width));
    });
}
