// Is a split fair? Pearson's test, as `moongate.test.ratio` asks it (SCRIPTING.md §10.5).

import Glibc

package enum ChiSquare {
    /// The statistic of counts against shares (which need not sum to 1), and its degrees of freedom. Nil where nothing
    /// was expected or seen.
    package static func statistic(counts: [Double], shares: [Double]) -> (value: Double, freedom: Int)? {
        let total = counts.reduce(0, +)
        let sum = shares.reduce(0, +)
        guard counts.count == shares.count, counts.count > 1, total > 0, sum > 0 else { return nil }
        var value = 0.0
        for (count, share) in zip(counts, shares) {
            let expected = total * share / sum
            if expected == 0 {
                if count > 0 { return (.infinity, counts.count - 1) }
                continue
            }
            value += (count - expected) * (count - expected) / expected
        }
        return (value, counts.count - 1)
    }

    /// The chance of a statistic at least that large when the shares are as expected: the regularised upper incomplete
    /// gamma function Q(k/2, x/2), by its series below the mean and its continued fraction above (Abramowitz and Stegun
    /// 6.5.29 and 6.5.31).
    package static func probability(_ statistic: Double, freedom: Int) -> Double {
        guard statistic.isFinite else { return 0 }
        guard statistic > 0, freedom > 0 else { return 1 }
        let a = Double(freedom) / 2
        let x = statistic / 2
        let front = exp(a * log(x) - x - lgamma(a))
        if x < a + 1 {
            var term = 1 / a
            var sum = term
            var n = a
            while term > sum * 1e-15 {
                n += 1
                term *= x / n
                sum += term
            }
            return max(0, 1 - front * sum)
        }
        let tiny = 1e-300
        var b = x + 1 - a
        var c = 1 / tiny
        var d = 1 / b
        var h = d
        for i in 1...1000 {
            let an = -Double(i) * (Double(i) - a)
            b += 2
            d = an * d + b
            if abs(d) < tiny { d = tiny }
            c = b + an / c
            if abs(c) < tiny { c = tiny }
            d = 1 / d
            let delta = d * c
            h *= delta
            if abs(delta - 1) < 1e-15 { break }
        }
        return min(1, front * h)
    }
}
