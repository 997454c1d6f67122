//! The operations on vectors of 128 bits in plain Rust, for processors that no other module supports.

#[derive(Clone, Copy)]
struct Vector([i16; 8]);

super::kernels!(Vector, 16,);

impl Vector {
    fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (bytes, number) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *bytes = number.to_le_bytes();
        }
        bytes
    }

    fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(std::array::from_fn(|i| i16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])))
    }

    fn wide(self) -> [i32; 4] {
        std::array::from_fn(|i| {
            i32::from(self.0[2 * i]) & 0xFFFF | i32::from(self.0[2 * i + 1]) << 16
        })
    }

    fn of_wide(numbers: [i32; 4]) -> Self {
        Self(std::array::from_fn(|i| (numbers[i / 2] >> (16 * (i % 2))) as i16))
    }

    #[inline(always)]
    fn with(self, other: Self, operation: impl Fn(i16, i16) -> i16) -> Self {
        Self(std::array::from_fn(|i| operation(self.0[i], other.0[i])))
    }

    #[inline(always)]
    fn with_wide(self, other: Self, operation: impl Fn(i32, i32) -> i32) -> Self {
        let (a, b) = (self.wide(), other.wide());
        Self::of_wide(std::array::from_fn(|i| operation(a[i], b[i])))
    }
}

#[inline(always)]
fn zero() -> Vector {
    set16(0)
}

#[inline(always)]
fn set8(value: i8) -> Vector {
    set16(i16::from_le_bytes([value as u8; 2]))
}

#[inline(always)]
fn set16(value: i16) -> Vector {
    Vector([value; 8])
}

#[inline(always)]
fn set32(value: i32) -> Vector {
    Vector::of_wide([value; 4])
}

#[inline(always)]
fn add16(a: Vector, b: Vector) -> Vector {
    a.with(b, i16::wrapping_add)
}

#[inline(always)]
fn sub16(a: Vector, b: Vector) -> Vector {
    a.with(b, i16::wrapping_sub)
}

#[inline(always)]
fn add32(a: Vector, b: Vector) -> Vector {
    a.with_wide(b, i32::wrapping_add)
}

#[inline(always)]
fn sub32(a: Vector, b: Vector) -> Vector {
    a.with_wide(b, i32::wrapping_sub)
}

#[inline(always)]
fn mullo(a: Vector, b: Vector) -> Vector {
    a.with(b, i16::wrapping_mul)
}

#[inline(always)]
fn mulhrs(a: Vector, b: Vector) -> Vector {
    a.with(b, |a, b| ((i32::from(a) * i32::from(b) + (1 << 14)) >> 15) as i16)
}

#[inline(always)]
fn madd(a: Vector, b: Vector) -> Vector {
    let product = |i: usize| i32::from(a.0[i]) * i32::from(b.0[i]);
    Vector::of_wide(std::array::from_fn(|i| product(2 * i).wrapping_add(product(2 * i + 1))))
}

#[inline(always)]
fn and(a: Vector, b: Vector) -> Vector {
    a.with(b, |a, b| a & b)
}

#[inline(always)]
fn or(a: Vector, b: Vector) -> Vector {
    a.with(b, |a, b| a | b)
}

#[inline(always)]
fn xor(a: Vector, b: Vector) -> Vector {
    a.with(b, |a, b| a ^ b)
}

#[inline(always)]
fn packs32(a: Vector, b: Vector) -> Vector {
    let (a, b) = (a.wide(), b.wide());
    let limited = |number: i32| number.clamp(i16::MIN.into(), i16::MAX.into()) as i16;
    Vector(std::array::from_fn(|i| limited(if i < 4 { a[i] } else { b[i - 4] })))
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn narrow32(a: Vector, b: Vector) -> Vector {
    let (a, b) = (a.wide(), b.wide());
    Vector(std::array::from_fn(|i| (if i < 4 { a[i] } else { b[i - 4] }) as i16))
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn descale32(value: Vector, bits: i32) -> Vector {
    let rounded = |number: i32| ((i64::from(number) + (1 << (bits - 1))) >> bits) as i32;
    Vector::of_wide(value.wide().map(rounded))
}

#[inline(always)]
fn packs16(a: Vector, b: Vector) -> Vector {
    let limited = |number: i16| number.clamp(-128, 127) as u8;
    Vector::of_bytes(std::array::from_fn(|i| limited(if i < 8 { a.0[i] } else { b.0[i - 8] })))
}

#[inline(always)]
fn packus16(a: Vector, b: Vector) -> Vector {
    let limited = |number: i16| number.clamp(0, 255) as u8;
    Vector::of_bytes(std::array::from_fn(|i| limited(if i < 8 { a.0[i] } else { b.0[i - 8] })))
}

#[inline(always)]
fn low8(a: Vector, b: Vector) -> Vector {
    let (a, b) = (a.bytes(), b.bytes());
    Vector(std::array::from_fn(|i| i16::from_le_bytes([a[i], b[i]])))
}

#[inline(always)]
fn high8(a: Vector, b: Vector) -> Vector {
    let (a, b) = (a.bytes(), b.bytes());
    Vector(std::array::from_fn(|i| i16::from_le_bytes([a[8 + i], b[8 + i]])))
}

#[inline(always)]
fn low16(a: Vector, b: Vector) -> Vector {
    let (a, b) = (a.0, b.0);
    Vector([a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]])
}

#[inline(always)]
fn high16(a: Vector, b: Vector) -> Vector {
    let (a, b) = (a.0, b.0);
    Vector([a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]])
}

#[inline(always)]
fn low32(a: Vector, b: Vector) -> Vector {
    let (a, b) = (a.0, b.0);
    Vector([a[0], a[1], b[0], b[1], a[2], a[3], b[2], b[3]])
}

#[inline(always)]
fn high32(a: Vector, b: Vector) -> Vector {
    let (a, b) = (a.0, b.0);
    Vector([a[4], a[5], b[4], b[5], a[6], a[7], b[6], b[7]])
}

#[inline(always)]
fn low64(a: Vector, b: Vector) -> Vector {
    let (a, b) = (a.0, b.0);
    Vector([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]])
}

#[inline(always)]
fn high64(a: Vector, b: Vector) -> Vector {
    let (a, b) = (a.0, b.0);
    Vector([a[4], a[5], a[6], a[7], b[4], b[5], b[6], b[7]])
}

#[inline(always)]
fn shift32(value: Vector, bits: i32) -> Vector {
    Vector::of_wide(value.wide().map(|number| number >> bits))
}

#[inline(always)]
fn any(value: Vector) -> bool {
    value.0 != [0; 8]
}

#[inline(always)]
fn load8(bytes: &[u8]) -> Vector {
    Vector::of_bytes(std::array::from_fn(|i| bytes[i]))
}

#[inline(always)]
fn load16(numbers: &[i16]) -> Vector {
    Vector(std::array::from_fn(|i| numbers[i]))
}

#[inline(always)]
fn repeat(numbers: &[i16]) -> Vector {
    load16(numbers)
}

#[inline(always)]
fn store_rows(pairs: [Vector; 4], out: &mut [u8], stride: usize) {
    for (pair, both) in pairs.into_iter().enumerate() {
        for (half, row) in both.bytes().as_chunks::<8>().0.iter().enumerate() {
            let at = (2 * pair + half) * stride;
            out[at..at + 8].copy_from_slice(row);
        }
    }
}

#[inline(always)]
fn store_pixels(red: Vector, green: Vector, blue: Vector, out: &mut [u8; 48]) {
    let (red, green, blue) = (red.bytes(), green.bytes(), blue.bytes());
    for (number, pixel) in out.as_chunks_mut::<3>().0.iter_mut().enumerate() {
        *pixel = [red[number], green[number], blue[number]];
    }
}
